//! Exchanges of HTTP/2. The requests at a time on one connection share it.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderName, HeaderValue, uri::Scheme};
use tokio::sync::Mutex;

use crate::{
    connect::Connector,
    failure::Failure,
    options::{Request, USER_AGENT},
    stats::Answer,
    target::Target,
};

/// Bytes that a server may send before they are taken, of a stream and of a connection.
const WINDOW: u32 = 1 << 20;

/// A connection that is opened when it is needed.
pub(crate) struct Http2 {
    connector: Connector,
    head: http::Request<()>,
    body: Bytes,
    keepalive: bool,
    /// The open connection.
    open: Mutex<Option<SendRequest<Bytes>>>,
}

/// An open connection.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// Whether it was opened for this request.
    pub(crate) is_new: bool,
}

/// The head of a request to a target.
///
/// # Errors
/// When the parts make none.
pub(crate) fn request_head(request: &Request, target: &Target) -> Result<http::Request<()>, http::Error> {
    let scheme = if target.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = http::Uri::builder()
        .scheme(scheme)
        .authority(target.authority.clone())
        .path_and_query(target.path.clone())
        .build()?;
    let mut head = http::Request::builder()
        .method(request.method.clone())
        .uri(uri)
        .body(())?;
    let headers = head.headers_mut();
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    // The fields of connections of HTTP/1.1 must not be sent.
    let sent = |(name, _): &&(HeaderName, HeaderValue)| *name != http::header::CONNECTION;
    for (name, value) in request.headers.iter().filter(sent) {
        headers.insert(name.clone(), value.clone());
    }
    Ok(head)
}

impl Http2 {
    /// A connection for this request.
    pub(crate) fn new(
        connector: Connector,
        head: http::Request<()>,
        body: Bytes,
        keepalive: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            head,
            body,
            keepalive,
            open: Mutex::new(None),
        })
    }

    /// Whether a connection has more than one request.
    pub(crate) fn keeps_connections(&self) -> bool {
        self.keepalive
    }

    /// Opens the connection, unless it is open.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) async fn open(&self) -> Result<Connection, Failure> {
        let mut open = self.open.lock().await;
        if let Some(sender) = &*open {
            return Ok(Connection {
                sender: sender.clone(),
                is_new: false,
            });
        }
        let stream = self.connector.open().await?;
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| failure(&error))?;
        // Its errors reach the requests. It ends with the last sending half and stream.
        tokio::spawn(connection);
        *open = self.keepalive.then(|| sender.clone());
        Ok(Connection { sender, is_new: true })
    }

    /// Sends the request and waits for the whole answer.
    ///
    /// # Errors
    /// When no answer comes; the connection must be closed then.
    pub(crate) async fn exchange(&self, connection: Connection) -> Result<Answer, Failure> {
        let exchange = async {
            let mut sender = connection.sender.ready().await?;
            let (answer, mut body) = sender.send_request(self.head.clone(), self.body.is_empty())?;
            if !self.body.is_empty() {
                body.send_data(self.body.clone(), true)?;
            }
            let (head, mut body) = answer.await?.into_parts();
            let mut bytes = 0;
            while let Some(data) = body.data().await {
                let length = data?.len();
                body.flow_control().release_capacity(length)?;
                bytes += length as u64;
            }
            Ok(Answer {
                status: Some(head.status.as_u16()),
                bytes,
            })
        };
        exchange.await.map_err(|error: h2::Error| failure(&error))
    }

    /// Leaves the connection, so that the next request opens another. Other requests on it go on.
    pub(crate) async fn close(&self) {
        *self.open.lock().await = None;
    }
}

fn failure(error: &h2::Error) -> Failure {
    match error.get_io() {
        Some(error) => Failure::from(error),
        None if error.is_go_away() && error.is_remote() => Failure::Closed,
        None if error.is_reset() && error.is_remote() => Failure::Reset,
        None => Failure::Protocol,
    }
}
