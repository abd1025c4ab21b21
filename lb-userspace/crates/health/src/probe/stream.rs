//! A connection of a check, plain or TLS.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::{connect::Budget, connection::Connection, tls::TlsClient};
use crate::{error::CheckError, probe::route::Route, status::Certificate};

/// How connections of a check are made.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) route: Route,
    pub(super) tls: Option<Arc<TlsClient>>,
}

impl Dialer {
    /// One with the same settings for another target: sessions to resume are not shared.
    pub(super) fn sibling(&self) -> Self {
        Self {
            route: self.route,
            tls: self.tls.as_ref().map(|tls| Arc::new(tls.sibling())),
        }
    }

    /// The certificate that was seen last.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        self.tls.as_ref()?.certificate()
    }

    /// Connects and does the TLS handshake, if configured.
    pub(super) async fn connect(&self, budget: &mut Budget) -> Result<Stream, CheckError> {
        let stream = budget.connect(self.route).await?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Ok(Stream::Tls(Box::new(tls.handshake(budget, stream).await?))),
        }
    }

    /// Whether the certificate of a connection that is used again still holds.
    pub(super) fn recheck(&self, target: SocketAddr, stream: &Stream) -> Result<(), CheckError> {
        match (&self.tls, stream) {
            (Some(tls), Stream::Tls(stream)) => tls.check_dates(target, stream.get_ref().1),
            _ => Ok(()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Connection),
    Tls(Box<TlsStream<Connection>>),
}

impl Stream {
    /// Permits one more answer, with a body of `body` bytes at most.
    pub(super) fn expect_answer(&mut self, body: usize) {
        match self {
            Self::Plain(stream) => stream.expect_answer(body),
            Self::Tls(stream) => stream.get_mut().0.expect_answer(body),
        }
    }

    /// Reads received bytes up to the capacity of `buffer`, without waiting: pending if there are none. No bytes mean
    /// that the peer has closed.
    pub(super) async fn read_now(&mut self, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let mut read = pin!(self.read_buf(buffer));
        poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
