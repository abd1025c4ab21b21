//! A TCP connection of a check, which reads a bounded number of bytes for one answer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that are read for one answer beside its body: heads, frames and TLS records of servers that do as they should
/// take a few kilobytes. Reading them takes well under a millisecond.
pub(super) const READ_LIMIT: usize = 128 * 1024;

/// More came than belongs to any answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("over {0} bytes read for one answer")]
pub(crate) struct TooMuch(pub(crate) usize);

/// A connection that fails with [`TooMuch`] when the peer does not stop sending, in any protocol: a parser may skip
/// interim answers, empty frames or records without end, and each of them costs time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    limit: usize,
    /// Bytes that may still be read.
    left: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            limit: READ_LIMIT,
            left: READ_LIMIT,
        }
    }

    /// Permits one more answer, with a body of `body` bytes at most.
    pub(super) fn expect_answer(&mut self, body: usize) {
        // Small chunks or frames may double it.
        self.limit = READ_LIMIT + 2 * body;
        self.left = self.limit;
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, limit, left } = self.get_mut();
        if *left == 0 {
            return Poll::Ready(Err(io::Error::other(TooMuch(*limit))));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        *left = left.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
