//! The command line's way to the daemon: HTTP/1.1 over its unix socket, or over TLS.

use std::{error::Error, io, iter, ops::ControlFlow, path::PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::CONTENT_TYPE,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use super::{
    error::{CliError, Exit},
    remote::Remote,
};
use crate::{api::requests::ErrorBody, chain::chain};

/// Path of the daemon's socket unless a flag, the environment or the configuration file sets another.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";

/// The daemon behind a socket, or at an address.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    /// On this machine.
    Socket(PathBuf),
    /// Elsewhere.
    Remote(Remote),
}

impl Client {
    /// A client for the daemon at `socket`; connects with each call.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self::Socket(socket)
    }

    /// `GET path` as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        decode(&self.fetch(Method::GET, path, None).await?)
    }

    /// `GET path` as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, CliError> {
        let bytes = self.fetch(Method::GET, path, None).await?;
        String::from_utf8(bytes.into()).map_err(|error| nonsense(&error))
    }

    /// A call that changes something, with a JSON body where there is one.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, CliError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| CliError::new(Exit::Failed, format!("request: {error}")))?;
        decode(&self.fetch(method, path, body).await?)
    }

    /// `GET path`, each line of the answer given to `line` as it comes, until the daemon ends it or `line` breaks.
    pub(crate) async fn lines(
        &self,
        path: &str,
        mut line: impl FnMut(&str) -> Result<ControlFlow<()>, CliError>,
    ) -> Result<ControlFlow<()>, CliError> {
        let mut body = self.send(Method::GET, path, None).await?;
        let mut begun = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if each_line(&mut begun, &data, &mut line)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn fetch(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, CliError> {
        let incoming = self.send(method, path, body).await?;
        let collected = incoming.collect().await.map_err(|error| broken(&error))?;
        Ok(collected.to_bytes())
    }

    /// Sends a request; an answer that is not a success becomes an error.
    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Incoming, CliError> {
        let (mut sender, host) = match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket)
                    .await
                    .map_err(|error| CliError::unreachable(socket, &error))?;
                (sender(stream).await?, "lb")
            }
            Self::Remote(remote) => (sender(remote.connect().await?).await?, remote.host()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| CliError::new(Exit::Failed, format!("request: {error}")))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?;
        Err(failure(status, &bytes.to_bytes()))
    }
}

/// Calls `line` with each line that ends in `data`, until it breaks. `begun` is the beginning of the first one, and becomes that of
/// the line whose end is still to come.
fn each_line(
    begun: &mut Vec<u8>,
    mut data: &[u8],
    mut line: impl FnMut(&str) -> Result<ControlFlow<()>, CliError>,
) -> Result<ControlFlow<()>, CliError> {
    let is_end = |byte: &u8| *byte == b'\n';
    if !begun.is_empty() {
        let Some(end) = data.iter().position(is_end) else {
            begun.extend_from_slice(data);
            return Ok(ControlFlow::Continue(()));
        };
        begun.extend_from_slice(&data[..end]);
        data = &data[end + 1..];
        if line(&String::from_utf8_lossy(begun))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        begun.clear();
    }
    let Some(last) = data.iter().rposition(is_end) else {
        begun.extend_from_slice(data);
        return Ok(ControlFlow::Continue(()));
    };
    begun.extend_from_slice(&data[last + 1..]);
    // Of a text, words of bytes are searched at a time.
    for text in String::from_utf8_lossy(&data[..last]).split('\n') {
        if line(text)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// An HTTP/1.1 connection over `stream`.
async fn sender(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, CliError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // Drives the connection; ends with it.
    tokio::spawn(connection);
    Ok(sender)
}

/// A path with a query of the values that are given. What has a meaning in a query, and what may not stand there, is escaped
/// (RFC 3986 section 2.1).
pub(super) fn with_query<'a>(
    path: &str,
    values: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> String {
    let mut path = path.to_owned();
    let mut before = '?';
    for (name, value) in values {
        if let Some(value) = value {
            path.push_str(&format!("{before}{name}={}", escaped(&value)));
            before = '&';
        }
    }
    path
}

fn escaped(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b'/' | b',' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    value.bytes().map(escape).collect()
}

fn failure(status: StatusCode, body: &[u8]) -> CliError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => CliError::answered(body),
        Err(_) => CliError::new(
            Exit::Failed,
            format!(
                "the daemon answered {status}: {}",
                String::from_utf8_lossy(body).trim()
            ),
        )
        .hint("see that the daemon and this program are of the same version"),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(bytes).map_err(|error| nonsense(&error))
}

fn nonsense(error: &dyn std::error::Error) -> CliError {
    CliError::new(
        Exit::Failed,
        format!("the daemon's answer makes no sense: {error}"),
    )
    .hint("see that the daemon and this program are of the same version")
}

fn broken(error: &(dyn Error + 'static)) -> CliError {
    let hung_up = CliError::new(Exit::Unreachable, format!("the daemon hung up: {}", chain(error)));
    let sources = iter::successors(Some(error), |&error| error.source());
    let mut inner = sources.filter_map(|error| error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref());
    if inner.any(|error| matches!(error, rustls::Error::AlertReceived(_))) {
        // With TLS 1.3 a server says so only after the handshake has ended for its client.
        return hung_up.hint("its log says why it refuses the certificate of --cert");
    }
    hung_up.hint("see its log; the kernel forwards on without it")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data comes in pieces of any size, which may end within a character.
    #[test]
    fn lines_are_whole_wherever_their_data_is_cut() {
        let text = "first\n\nzwölf → 12\nlast\nbegun";
        let expected = ["first", "", "zwölf → 12", "last"];
        for size in 1..=text.len() {
            let (mut begun, mut lines) = (Vec::new(), Vec::new());
            for data in text.as_bytes().chunks(size) {
                let add = |line: &str| {
                    lines.push(line.to_owned());
                    Ok(ControlFlow::Continue(()))
                };
                assert!(each_line(&mut begun, data, add).unwrap().is_continue());
            }
            assert_eq!(
                (&*lines, &*begun),
                (&expected.map(str::to_owned)[..], &b"begun"[..])
            );
        }
    }

    #[test]
    fn no_line_follows_the_one_that_breaks() {
        let mut lines = Vec::new();
        let add = |line: &str| {
            lines.push(line.to_owned());
            Ok(if line == "b" {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        };
        assert!(
            each_line(&mut b"a".to_vec(), b"\nb\nc\n", add)
                .unwrap()
                .is_break()
        );
        assert_eq!(lines, ["a", "b"]);
    }

    #[test]
    fn values_of_a_query_are_escaped() {
        let some = |value: &str| Some(value.to_owned());
        let query = [
            ("client", some("2001:db8::/32")),
            ("state", None),
            ("service", some("a&b=c d[1]")),
        ];
        let path = with_query("/v1/flows", query);
        assert_eq!(
            path,
            "/v1/flows?client=2001:db8::/32&service=a%26b%3Dc%20d%5B1%5D"
        );
        assert_eq!(with_query("/v1/flows", [("state", None)]), "/v1/flows");
    }
}
