//! One connection: in which phase it is, and how long it may stay there.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    Limits,
    body::{AnswerBody, RequestBody},
    metrics::Ended,
};

/// The phase of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It waits for a request.
    Idle,
    /// The head of a request comes.
    Head,
    /// The request is being answered.
    Answer,
    /// The body of a request is being read.
    Body,
    /// The last bytes of an answer are being written.
    Flush,
}

/// The phase, and since when.
#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken no byte that there is for it.
    stalled: Option<Instant>,
}

impl State {
    /// When the phase has lasted too long, and the cause to count then; `None` without a limit.
    fn deadline(&self, limits: &Limits) -> Option<(Instant, Ended)> {
        let phase = match self.phase {
            Phase::Idle => Some((limits.idle, Ended::Idle)),
            Phase::Head => Some((limits.head, Ended::SlowRequest)),
            Phase::Body => Some((limits.body, Ended::SlowRequest)),
            Phase::Answer | Phase::Flush => limits.answer.map(|limit| (limit, Ended::SlowReader)),
        };
        let phase = phase.map(|(limit, ended)| (self.since + limit, ended));
        let stall = self
            .stalled
            .map(|since| (since + limits.stall, Ended::SlowReader));
        phase.into_iter().chain(stall).min_by_key(|(at, _)| *at)
    }
}

/// A connection, as its bodies, its socket and the other connections see it.
#[derive(Debug)]
pub(super) struct Connection {
    state: watch::Sender<State>,
    displaced: CancellationToken,
}

impl Connection {
    pub(super) fn new() -> Self {
        let state = State {
            phase: Phase::Idle,
            since: Instant::now(),
            stalled: None,
        };
        Self {
            state: watch::Sender::new(state),
            displaced: CancellationToken::new(),
        }
    }

    /// Since when it has waited for a request, or for the rest of a head; `None` while it is busy.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = *self.state.borrow();
        matches!(state.phase, Phase::Idle | Phase::Head).then_some(state.since)
    }

    /// Ends it.
    pub(super) fn displace(&self) {
        self.displaced.cancel();
    }

    /// Moves to `to` from one of the phases `from`; ignored in other phases.
    pub(super) fn go(&self, from: &[Phase], to: Phase) {
        self.state.send_if_modified(|state| {
            let goes = from.contains(&state.phase);
            if goes {
                // The time for an answer does not begin again with its last bytes.
                if to != Phase::Flush {
                    state.since = Instant::now();
                }
                state.phase = to;
            }
            goes
        });
    }

    fn wrote(&self, pending: bool) {
        self.state.send_if_modified(|state| {
            let changes = pending != state.stalled.is_some();
            if changes {
                state.stalled = pending.then(Instant::now);
            }
            changes
        });
    }
}

/// Serves a connection until it ends or has to be ended: then, why.
pub(super) async fn drive(
    io: impl AsyncRead + AsyncWrite + Unpin + Send,
    router: Router,
    connection: Arc<Connection>,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Option<Ended> {
    let io = TokioIo::new(WatchedIo {
        io,
        connection: Arc::clone(&connection),
    });
    let service = service_fn(|request| answer(request, router.clone(), &connection));
    let mut served = pin!(http1::Builder::new().serve_connection(io, service));
    let mut states = connection.state.subscribe();
    let mut stopping = false;
    loop {
        let deadline = states.borrow_and_update().deadline(limits);
        let expired = async {
            match deadline {
                Some((at, ended)) => {
                    time::sleep_until(at).await;
                    ended
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A connection that breaks is the client's affair.
            _ = served.as_mut() => return None,
            ended = expired => return Some(ended),
            () = connection.displaced.cancelled() => return Some(Ended::Displaced),
            _ = states.changed() => {}
            () = cancel.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    mut router: Router,
    connection: &Arc<Connection>,
) -> Result<Response, Infallible> {
    connection.go(&[Phase::Idle, Phase::Head, Phase::Flush], Phase::Answer);
    let request = request.map(|body| {
        if body.is_end_stream() {
            Body::empty()
        } else {
            Body::new(RequestBody::new(body, Arc::clone(connection)))
        }
    });
    let response = router.call(request).await?;
    Ok(response.map(|body| Body::new(AnswerBody::new(body, Arc::clone(connection)))))
}

/// A socket that reports to its connection the first bytes, and a client that does not read.
struct WatchedIo<T> {
    io: T,
    connection: Arc<Connection>,
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.go(&[Phase::Idle], Phase::Head);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.connection.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.connection.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes the socket only when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_ready() {
            self.connection.go(&[Phase::Flush], Phase::Idle);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
