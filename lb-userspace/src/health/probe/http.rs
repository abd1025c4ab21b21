//! Is an HTTP/1.1 request answered as expected?

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Checker,
    connect::{Budget, Route},
    problem::ProbeError,
    request::Plan,
    response::{Malformed, ResponseReader},
    stream::{Dialer, Stream},
    tls::TlsClient,
};
use crate::health::{
    error::{CheckError, Latency, Stage},
    settings::HttpCheck,
    status::Certificate,
};

/// Every so many checks use a new connection, so that a network that lets old connections live but no new ones begin
/// still shows.
pub const FRESH_EVERY: u32 = 10;
/// Bytes read at once.
const READ_SIZE: usize = 4096;
/// A connection between two checks.
#[derive(Debug)]
struct Kept {
    stream: Stream,
    target: SocketAddr,
    /// Checks it has served.
    uses: u32,
    /// The latest answer, where the check did not wait for its end.
    unfinished: Option<ResponseReader>,
}

impl Kept {
    /// Reads what is left of the latest answer, as far as it has come, and waits for nothing. Whether the connection can
    /// take another request: the answer is complete, and the peer has neither said more nor closed.
    async fn is_ready(&mut self) -> bool {
        let mut piece = Vec::with_capacity(READ_SIZE);
        loop {
            piece.clear();
            match self.stream.read_now(&mut piece).await {
                Poll::Pending => return self.unfinished.is_none(),
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return false,
            }
            let Some(reader) = &mut self.unfinished else {
                return false;
            };
            match reader.feed(&piece).map(|()| reader.done()) {
                Ok(None) => {}
                Ok(Some(true)) => self.unfinished = None,
                Ok(Some(false)) | Err(Malformed(_)) => return false,
            }
        }
    }
}

/// Sends a request and compares the answer.
///
/// It keeps one connection, to the target checked last, and uses it again unless the server closed it, but for
/// [`FRESH_EVERY`] checks at most. When a kept connection turns out to be dead, the check is made once more on a new
/// one before it counts, within the same time-out.
#[derive(Debug)]
pub struct HttpChecker {
    plan: Arc<Plan>,
    dialer: Dialer,
    fresh_every: u32,
    kept: Mutex<Option<Kept>>,
}

impl HttpChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no request, or one that no answer can satisfy.
    pub fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        let plan = Arc::new(Plan::new(settings)?);
        let tls = match &settings.tls {
            Some(tls) => Some(Arc::new(TlsClient::new(tls, settings.host.as_deref())?)),
            None => None,
        };
        Ok(Self {
            plan,
            dialer: Dialer {
                route: Route::default(),
                tls,
            },
            fresh_every: FRESH_EVERY,
            kept: Mutex::new(None),
        })
    }

    /// Uses a connection for `checks` checks at most; 0 and 1: for one.
    #[must_use]
    pub fn with_fresh_every(self, checks: u32) -> Self {
        Self {
            fresh_every: checks,
            ..self
        }
    }

    /// Connects by `route`.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.dialer.route = route;
        self
    }

    /// The certificate that was seen last, if any was.
    pub fn certificate(&self) -> Option<Certificate> {
        self.dialer.certificate()
    }

    /// A checker with the same settings and a connection of its own, for another target.
    pub fn sibling(&self) -> Self {
        Self {
            plan: Arc::clone(&self.plan),
            dialer: self.dialer.sibling(),
            fresh_every: self.fresh_every,
            kept: Mutex::new(None),
        }
    }

    /// The kept connection, if it leads to `target`, may be used again, and looks alive.
    async fn take_kept(&self, target: SocketAddr) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let usable = kept.target == target && kept.uses < self.fresh_every && kept.is_ready().await;
        usable.then_some(kept)
    }

    /// Sends the request on `connection` and judges the answer; keeps the connection if it can be used again.
    async fn exchange(&self, budget: &mut Budget, mut connection: Kept) -> Result<(), CheckError> {
        let target = budget.target;
        let request = self.plan.request(target);
        connection.stream.expect_answer(self.plan.expect.max_body);
        budget
            .spend(Stage::Request, async {
                connection.stream.write_all(request.as_bytes()).await?;
                connection.stream.flush().await
            })
            .await?;
        let head_only = self.plan.expect.wants_head_only();
        let mut reader = ResponseReader::new(self.plan.head_request, self.plan.expect.max_body);
        let mut piece = Vec::with_capacity(READ_SIZE);
        let reusable = loop {
            let stage = match (reader.in_body(), reader.begun()) {
                (true, _) => Stage::Body,
                (false, true) => Stage::Head,
                (false, false) => Stage::Request,
            };
            piece.clear();
            let read = budget.spend(stage, connection.stream.read_buf(&mut piece));
            let read = match read.await {
                // TLS that ends without saying so, as many servers do. A body of unknown length may end that way.
                Err(CheckError::Closed { .. }) => 0,
                read => read?,
            };
            if read == 0 && !reader.end() {
                return Err(CheckError::Closed { target, stage });
            }
            reader
                .feed(&piece)
                .map_err(|Malformed(reason)| CheckError::NotHttp { target, reason })?;
            if let Some(reusable) = reader.done() {
                break reusable;
            }
            // The body may come late, or never end: it is not waited for where nothing of it is wanted.
            if head_only && reader.in_body() {
                break reader.may_be_reusable();
            }
        };
        let status = reader.status();
        let judged = self.plan.expect.judge(target, status, reader.body());
        if reusable {
            connection.uses += 1;
            connection.unfinished = reader.done().is_none().then_some(reader);
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        judged
    }
}

impl Checker for HttpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        if let Some(kept) = self.take_kept(target).await {
            self.dialer.recheck(target, &kept.stream)?;
            match self.exchange(&mut budget, kept).await {
                Err(error) if gone_stale(&error) => {}
                result => return result.map(|()| Latency(budget.started.elapsed())),
            }
        }
        let stream = self.dialer.connect(&mut budget).await?;
        self.exchange(
            &mut budget,
            Kept {
                stream,
                target,
                uses: 0,
                unfinished: None,
            },
        )
        .await?;
        Ok(Latency(budget.started.elapsed()))
    }
}

/// Whether a failure on a kept connection may only mean that the server had given it up. It may do so at any time,
/// also by 408 (RFC 9110 section 15.5.9).
fn gone_stale(error: &CheckError) -> bool {
    matches!(
        error,
        CheckError::Reset { .. }
            | CheckError::Closed { .. }
            | CheckError::Connection { .. }
            | CheckError::Status { status: 408, .. }
    )
}
