//! One HTTP/2 connection of a check: its requests, one after the other, and the meaning of its failures. The connection
//! is polled only while a check waits for it. Bytes that the peer sends between two checks are read when the next one
//! begins; no separate task is needed.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{Builder, Connection, SendRequest},
};
use http::{HeaderMap, Request};

use super::wire::Wire;
use crate::{
    error::{CheckError, Http2Problem, Stage},
    probe::{
        connect::Budget,
        response::MAX_HEAD,
        stream::{Dialer, Stream},
    },
};

/// Largest frame we take, in bytes: the smallest limit that the protocol permits (RFC 9113 section 4.2).
const MAX_FRAME: u32 = 16 * 1024;

/// An answer.
#[derive(Debug)]
pub(in crate::probe) struct Answer {
    pub(in crate::probe) status: u16,
    pub(in crate::probe) headers: HeaderMap,
    /// Up to the requested limit.
    pub(in crate::probe) body: Vec<u8>,
    pub(in crate::probe) trailers: Option<HeaderMap>,
    /// Whether that is all of it.
    pub(in crate::probe) whole: bool,
}

/// The parts of an answer that a check needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::probe) enum Wanted {
    /// Status and headers.
    Head,
    /// This many bytes of the body too, and the trailers.
    Body(usize),
}

/// A connection.
pub(in crate::probe) struct Session {
    requests: SendRequest<Bytes>,
    connection: Connection<Wire, Bytes>,
    /// How the connection ended.
    over: Option<Result<(), h2::Error>>,
    /// The body of the latest answer, where the check did not wait for its end.
    unfinished: Option<RecvStream>,
    wire: Wire,
}

impl Session {
    /// Sends the preface; the peer's SETTINGS are read together with its first answer.
    pub(super) async fn open(budget: &mut Budget, stream: Stream) -> Result<Self, CheckError> {
        let wire = Wire::new(stream);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
        let hello = budget
            .limit(|| Stage::Request, builder.handshake(wire.clone()))
            .await?;
        let target = budget.target;
        let (requests, connection) =
            hello.map_err(|error| explain(&wire, target, Stage::Request, Some(&error), None))?;
        Ok(Self {
            requests,
            connection,
            over: None,
            unfinished: None,
            wire,
        })
    }

    /// Whether the certificate still holds.
    pub(super) fn recheck(&self, dialer: &Dialer, target: SocketAddr) -> Result<(), CheckError> {
        self.wire.recheck(dialer, target)
    }

    /// Reads the rest of the latest answer without waiting. Returns whether the connection can take another request.
    pub(super) async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            let over = self.poll_connection(cx);
            let finished = self.unfinished.as_mut().is_none_or(|body| drained(body, cx));
            Poll::Ready(finished && !over)
        })
        .await
    }

    /// Sends a request with a body, if any, and reads `limit` bytes of the answer's body at most, or none of it where only
    /// its head is `wanted`.
    pub(super) async fn ask(
        &mut self,
        budget: &mut Budget,
        request: Request<()>,
        body: Option<Bytes>,
        wanted: Wanted,
    ) -> Result<Answer, CheckError> {
        self.unfinished = None;
        let limit = match wanted {
            Wanted::Head => 0,
            Wanted::Body(limit) => limit,
        };
        self.wire.expect_answer(limit);
        let mut requests = self.requests.clone();
        let head = async move {
            poll_fn(|cx| requests.poll_ready(cx)).await?;
            let (answer, mut upload) = requests.send_request(request, body.is_none())?;
            if let Some(body) = body {
                upload.send_data(body, true)?;
            }
            answer.await
        };
        let (head, stream) = self.drive(budget, Stage::Request, head).await?.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Vec::new(),
            trailers: None,
            whole: false,
        };
        match wanted {
            Wanted::Head => {
                // The next check reads the rest, if there is any and if it has come by then.
                answer.whole = true;
                self.unfinished = Some(stream);
            }
            Wanted::Body(limit) => {
                let body = read(stream, limit, &mut answer);
                self.drive(budget, Stage::Body, body).await?;
            }
        }
        Ok(answer)
    }

    /// Does `work` while the connection moves. Where it waits between two frames, it is for `waiting`.
    async fn drive<T>(
        &mut self,
        budget: &mut Budget,
        waiting: Stage,
        work: impl Future<Output = Result<T, h2::Error>>,
    ) -> Result<T, CheckError> {
        let wire = self.wire.clone();
        let mut work = pin!(work);
        let moved = poll_fn(|cx| {
            let over = self.poll_connection(cx);
            match work.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.map_err(Some)),
                // No event will wake it again.
                Poll::Pending if over => Poll::Ready(Err(None)),
                Poll::Pending => Poll::Pending,
            }
        });
        let result = budget.limit(|| wire.stage(waiting), moved).await?;
        let ending = self.over.as_ref().and_then(|over| over.as_ref().err());
        result.map_err(|error| explain(&self.wire, budget.target, waiting, error.as_ref(), ending))
    }

    /// Reads and writes without waiting; returns whether the connection is over.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> bool {
        if self.over.is_none()
            && let Poll::Ready(ending) = Pin::new(&mut self.connection).poll(cx)
        {
            self.over = Some(ending);
        }
        self.over.is_some()
    }
}

/// Discards received parts of a body. Returns whether that was its end.
fn drained(body: &mut RecvStream, cx: &mut Context<'_>) -> bool {
    loop {
        match body.poll_data(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                if body.flow_control().release_capacity(piece.len()).is_err() {
                    return false;
                }
            }
            Poll::Ready(None) => return true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
        }
    }
}

/// Reads a body up to `limit` bytes and, where it ends by then, the trailers.
async fn read(mut stream: RecvStream, limit: usize, answer: &mut Answer) -> Result<(), h2::Error> {
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        let room = limit - answer.body.len();
        answer.body.extend(piece.iter().take(room));
        if piece.len() > room {
            return Ok(());
        }
    }
    answer.trailers = stream.trailers().await?;
    answer.whole = true;
    Ok(())
}

/// The cause of a failure: the peer's own error first, then errors of the network, then protocol violations.
fn explain(
    wire: &Wire,
    target: SocketAddr,
    waiting: Stage,
    of_request: Option<&h2::Error>,
    of_connection: Option<&h2::Error>,
) -> CheckError {
    let errors = || of_request.into_iter().chain(of_connection);
    let by_peer = |error: &h2::Error| {
        let code = error.reason().map(|reason| format!("{reason:?}"))?;
        let problem = match (error.is_remote(), error.is_go_away()) {
            (true, true) => Http2Problem::GoAway(code),
            (true, false) => Http2Problem::Reset(code),
            (false, _) => Http2Problem::Violation(code),
        };
        Some(CheckError::Http2 { target, problem })
    };
    errors()
        .filter(|error| error.is_remote())
        .find_map(by_peer)
        .or_else(|| wire.failure(target, waiting))
        .or_else(|| errors().find_map(by_peer))
        .unwrap_or(CheckError::Closed {
            target,
            stage: wire.stage(waiting),
        })
}
