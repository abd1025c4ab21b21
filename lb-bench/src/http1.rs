//! Exchanges of HTTP/1.1, by hand on `httparse`: one task, which sends bytes made beforehand and keeps nothing of an answer but its
//! status and size.

use std::sync::Arc;

use crate::{
    connect::Connector,
    failure::Failure,
    options::{Request, USER_AGENT},
    response::{Malformed, Response},
    stats::Answer,
    stream::Stream,
    target::Target,
};

/// A connection that is opened when it is needed.
pub(crate) struct Http1 {
    request: Arc<[u8]>,
    to_head: bool,
    keepalive: bool,
    stream: Option<Stream>,
    response: Response,
}

/// The bytes of a request to a target.
pub(crate) fn request_bytes(request: &Request, target: &Target, keepalive: bool) -> Arc<[u8]> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, target.path).into_bytes();
    let mut header = |name: &str, value: &[u8]| {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    };
    let has = |name: &str| request.headers.iter().any(|(found, _)| found == name);
    if !has("host") {
        header("Host", target.authority.as_str().as_bytes());
    }
    if !has("user-agent") {
        header("User-Agent", USER_AGENT.as_bytes());
    }
    if !request.body.is_empty() && !has("content-length") {
        header("Content-Length", request.body.len().to_string().as_bytes());
    }
    if !keepalive && !has("connection") {
        header("Connection", b"close");
    }
    for (name, value) in &request.headers {
        header(name.as_str(), value.as_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&request.body);
    bytes.into()
}

impl Http1 {
    /// A connection for this request.
    pub(crate) fn new(request: Arc<[u8]>, to_head: bool, keepalive: bool) -> Self {
        Self {
            request,
            to_head,
            keepalive,
            stream: None,
            response: Response::default(),
        }
    }

    /// Opens the connection, unless it is open; tells whether it had to.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) async fn open(&mut self, connector: &Connector) -> Result<bool, Failure> {
        if let Some(stream) = &mut self.stream {
            match stream.unasked()? {
                None => return Ok(false),
                // The server has closed an idle connection, as it may.
                Some(0) => self.close(),
                Some(_) => return Err(Failure::Protocol),
            }
        }
        self.stream = Some(connector.open().await?);
        Ok(true)
    }

    /// Sends the request over the open connection and waits for the whole answer.
    ///
    /// # Errors
    /// When no answer comes; the connection must be closed then.
    pub(crate) async fn exchange(&mut self) -> Result<Answer, Failure> {
        let stream = self.stream.as_mut().ok_or(Failure::Closed)?;
        stream.send(&self.request).await?;
        let whole = loop {
            let (response, to_head) = (&mut self.response, self.to_head);
            let taken = stream.receive(|bytes| match bytes {
                [] => response.end().ok_or(Failure::Closed).map(Some),
                bytes => response.take(bytes, to_head).map_err(Failure::from),
            });
            if let Some(whole) = taken.await?? {
                break whole;
            }
        };
        if whole.closes || !self.keepalive {
            self.close();
        }
        Ok(Answer {
            status: Some(whole.status),
            bytes: whole.bytes,
        })
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.response = Response::default();
    }
}

impl From<Malformed> for Failure {
    fn from(Malformed: Malformed) -> Self {
        Self::Protocol
    }
}
