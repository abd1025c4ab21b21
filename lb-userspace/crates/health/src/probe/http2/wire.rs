//! The connection under HTTP/2. The HTTP/2 library owns one handle and keeps only the kind of an I/O error; our handle
//! has the real error and the peer's progress.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Foreign, FrameWatch};
use crate::{
    error::{CheckError, Http2Problem, Stage},
    probe::stream::{Dialer, Stream},
};

/// Why no more bytes come.
#[derive(Debug)]
enum Failure {
    /// The peer has closed the connection.
    Closed,
    /// The peer speaks something else.
    Foreign(Foreign),
    /// Anything else.
    Io(io::Error),
}

#[derive(Debug)]
struct Inner {
    stream: Stream,
    frames: FrameWatch,
    failure: Option<Failure>,
}

/// A handle of a connection.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Mutex<Inner>>);

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stream,
            frames: FrameWatch::default(),
            failure: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Permits one more answer, with a body of `body` bytes at most.
    pub(super) fn expect_answer(&self, body: usize) {
        self.inner().stream.expect_answer(body);
    }

    /// The stage that the peer is in; `waiting` between two frames.
    pub(super) fn stage(&self, waiting: Stage) -> Stage {
        let inner = self.inner();
        if inner.frames.within_frame() {
            Stage::Frame
        } else if inner.frames.within_head() {
            Stage::Head
        } else {
            waiting
        }
    }

    /// Why no more bytes come from `target`, if so.
    pub(super) fn failure(&self, target: SocketAddr, waiting: Stage) -> Option<CheckError> {
        let stage = self.stage(waiting);
        let foreign = |problem| CheckError::Http2 { target, problem };
        Some(match self.inner().failure.as_ref()? {
            Failure::Closed => CheckError::Closed { target, stage },
            Failure::Foreign(Foreign::Http1) => foreign(Http2Problem::Http1),
            Failure::Foreign(Foreign::Other) => foreign(Http2Problem::Garbage),
            Failure::Io(error) => CheckError::from_io(target, stage, error),
        })
    }

    /// Whether the certificate still holds.
    pub(super) fn recheck(&self, dialer: &Dialer, target: SocketAddr) -> Result<(), CheckError> {
        dialer.recheck(target, &self.inner().stream)
    }
}

impl Inner {
    /// Remembers the first error and gives the library its kind.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.failure.get_or_insert(Failure::Io(error));
        kind.into()
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| self.fail(error))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut inner.stream).poll_read(cx, buffer));
        inner.note(result)?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            inner.failure.get_or_insert(Failure::Closed);
        }
        if let Err(foreign) = inner.frames.feed(bytes) {
            inner.failure.get_or_insert(Failure::Foreign(foreign));
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        let result = ready!(Pin::new(&mut inner.stream).poll_write(cx, bytes));
        Poll::Ready(inner.note(result))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let result = ready!(Pin::new(&mut inner.stream).poll_flush(cx));
        Poll::Ready(inner.note(result))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let result = ready!(Pin::new(&mut inner.stream).poll_shutdown(cx));
        Poll::Ready(inner.note(result))
    }
}
