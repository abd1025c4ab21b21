//! Serving one connection.

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
    time::{self},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    body::{AnswerBody, RequestBody},
    connection::{Connection, Phase},
    limits::{Endless, Limits},
    metrics::Ended,
};

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
    let mut served = pin!(
        http1::Builder::new()
            .max_buf_size(limits.head_bytes)
            .serve_connection(io, service)
    );
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
    let mut request = request.map(|body| {
        if body.is_end_stream() {
            Body::empty()
        } else {
            Body::new(RequestBody::new(body, Arc::clone(connection)))
        }
    });
    if let Some(peer) = connection.peer.get() {
        request.extensions_mut().insert(peer.clone());
    }
    let response = router.call(request).await?;
    if response.extensions().get::<Endless>().is_some() {
        connection.go(&[Phase::Answer], Phase::Stream);
    }
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
