//! Is an HTTP/1.1 request answered as expected?

use std::{net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    connect::Budget,
    keeping::{Exchange, Keeper},
    problem::ProbeError,
    request::Plan,
    response::{Malformed, ResponseReader},
    stream::{Dialer, Stream},
    tls::TlsClient,
};
use crate::{
    error::{CheckError, Latency, Stage},
    probe::{checker::Checker, route::Route},
    settings::HttpCheck,
    status::Certificate,
};

/// Bytes read at once.
const READ_SIZE: usize = 4096;
/// A connection.
#[derive(Debug)]
struct Link {
    stream: Stream,
    /// The latest answer, where the check did not wait for its end.
    unfinished: Option<ResponseReader>,
}

impl Link {
    /// Reads the rest of the latest answer without waiting. Returns whether the connection can take another request:
    /// the answer is complete, and the peer has neither sent more nor closed.
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
/// [`FRESH_EVERY`](crate::probe::keeping::FRESH_EVERY) checks at most, and only where the server serves others beside it. A check over a
/// kept connection also begins a new one, which must be taken. When a kept connection turns out to be dead, the check is
/// made once more on a new one before it counts, within the same time-out.
#[derive(Debug)]
pub struct HttpChecker {
    requests: Requests,
    keeper: Keeper<Link>,
}

/// The requests, and how to send them.
#[derive(Debug)]
struct Requests {
    plan: Arc<Plan>,
    dialer: Dialer,
}

impl HttpChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no valid request, or one that no answer can satisfy.
    pub fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        let plan = Arc::new(Plan::new(settings)?);
        let tls = match &settings.tls {
            Some(tls) => Some(Arc::new(TlsClient::new(tls, settings.host.as_deref())?)),
            None => None,
        };
        let route = Route::default();
        Ok(Self {
            requests: Requests {
                plan,
                dialer: Dialer { route, tls },
            },
            keeper: Keeper::new(settings.keep_alive),
        })
    }

    /// Uses a connection for `checks` checks at most; 0 and 1: for one.
    #[must_use]
    pub fn with_fresh_every(mut self, checks: u32) -> Self {
        self.keeper.fresh_every = checks;
        self
    }

    /// Begins a new connection beside every n-th check over a kept one; 0 and 1: beside each.
    #[must_use]
    pub fn with_knock_every(mut self, checks: u32) -> Self {
        self.keeper.knock_every = checks;
        self
    }

    /// Gives the answer on a second connection the least time that it has in use.
    #[cfg(test)]
    pub(super) fn with_patience_in_use(mut self) -> Self {
        self.keeper.patience = super::keeping::PATIENCE_IN_USE;
        self
    }

    /// Connects by `route`.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.requests.dialer.route = route;
        self
    }

    /// The certificate that was seen last, if any was.
    pub fn certificate(&self) -> Option<Certificate> {
        self.requests.dialer.certificate()
    }

    /// Whether the server answers on one connection at a time only, so that checks close theirs.
    pub fn serves_one(&self) -> bool {
        self.keeper.serves_one()
    }

    /// A checker with the same settings and a connection of its own, for another target.
    pub fn sibling(&self) -> Self {
        Self {
            requests: Requests {
                plan: Arc::clone(&self.requests.plan),
                dialer: self.requests.dialer.sibling(),
            },
            keeper: self.keeper.sibling(),
        }
    }
}

impl Exchange for Requests {
    type Link = Link;
    type Answer = ();

    async fn connect(&self, budget: &mut Budget) -> Result<Link, CheckError> {
        Ok(Link {
            stream: self.dialer.connect(budget).await?,
            unfinished: None,
        })
    }

    async fn ask(
        &self,
        budget: &mut Budget,
        mut link: Link,
        last: bool,
    ) -> Result<((), Option<Link>), CheckError> {
        let target = budget.target;
        let expect = &self.plan.expect;
        let request = self.plan.request(target, last);
        link.stream.expect_answer(expect.max_body);
        budget
            .spend(Stage::Request, async {
                link.stream.write_all(request.as_bytes()).await?;
                link.stream.flush().await
            })
            .await?;
        let mut reader = ResponseReader::new(self.plan.head_request, expect.max_body);
        let mut piece = Vec::with_capacity(READ_SIZE);
        let reusable = loop {
            let stage = match (reader.in_body(), reader.begun()) {
                (true, _) => Stage::Body,
                (false, true) => Stage::Head,
                (false, false) => Stage::Request,
            };
            piece.clear();
            let read = budget.spend(stage, link.stream.read_buf(&mut piece));
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
            // The body may come late, or never end: a check that needs no body does not wait for it.
            if expect.wants_head_only() && reader.in_body() {
                break reader.may_be_reusable();
            }
        };
        expect.judge(target, reader.status(), reader.body())?;
        link.unfinished = reader.done().is_none().then_some(reader);
        Ok(((), reusable.then_some(link)))
    }

    async fn is_ready(&self, link: &mut Link) -> bool {
        link.is_ready().await
    }

    fn recheck(&self, target: SocketAddr, link: &Link) -> Result<(), CheckError> {
        self.dialer.recheck(target, &link.stream)
    }
}

impl Checker for HttpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let route = self.requests.dialer.route;
        self.keeper.ask(&self.requests, route, &mut budget).await?;
        Ok(Latency(budget.started.elapsed()))
    }

    fn renew(&self) {
        self.keeper.renew();
    }
}
