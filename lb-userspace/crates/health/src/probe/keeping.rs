//! Connections that are kept between two checks. They make checks cheap, but have two risks. A server that serves one
//! connection at a time is blocked while one is kept: so each server is tested on a second connection beside the first.
//! And a server that takes no new connections may still serve the old ones: so a check over a kept connection also
//! begins a new one, half-open, which costs little and shows whether the port is open.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use super::connect::Budget;
use crate::{
    error::{CheckError, GrpcProblem},
    probe::route::Route,
};

/// Every n-th check uses a new connection. This detects a network that blocks new connections only, and a server that
/// accepts none although its kernel does.
pub const FRESH_EVERY: u32 = 10;

/// Time for the answer on a second connection: a minimum, and a multiple of the first one's. A test gets more,
/// unless it asks for a server that leaves the second one waiting: on a busy machine 50 ms pass between two answers.
const PATIENCE: Duration = if cfg!(test) {
    Duration::from_secs(30)
} else {
    PATIENCE_IN_USE
};
pub(super) const PATIENCE_IN_USE: Duration = Duration::from_millis(50);
const PATIENCE_FACTOR: u32 = 10;

/// How requests of one kind are sent.
pub(super) trait Exchange: Sync {
    /// A connection.
    type Link: Send;
    /// An answer.
    type Answer: Send;

    /// Makes a connection.
    fn connect(&self, budget: &mut Budget) -> impl Future<Output = Result<Self::Link, CheckError>> + Send;

    /// Sends the request. Returns the answer and, where it can be used again, the connection. It is not going to be where
    /// the request is its `last`.
    fn ask(
        &self,
        budget: &mut Budget,
        link: Self::Link,
        last: bool,
    ) -> impl Future<Output = Answered<Self>> + Send;

    /// Whether a kept connection may take another request, without waiting.
    fn is_ready(&self, link: &mut Self::Link) -> impl Future<Output = bool> + Send;

    /// Whether the certificate of a kept connection still holds.
    fn recheck(&self, target: SocketAddr, link: &Self::Link) -> Result<(), CheckError>;
}

type Answered<E> = Result<(<E as Exchange>::Answer, Option<<E as Exchange>::Link>), CheckError>;

/// Whether the server serves a second connection beside a kept one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Beside {
    #[default]
    Unknown,
    /// Answered.
    Served,
    /// Not answered once, until the kept one was closed: a server may be slow for a moment.
    Doubtful,
    /// Not answered twice in a row: the server serves one connection at a time.
    Starved,
}

/// A connection between two checks.
#[derive(Debug)]
struct Kept<L> {
    link: L,
    target: SocketAddr,
    /// Checks it has served.
    uses: u32,
}

/// Keeps the connection to the target checked last.
#[derive(Debug)]
pub(super) struct Keeper<L> {
    /// Checks that a connection serves at most; 0 and 1: one.
    pub(super) fresh_every: u32,
    /// Every n-th check over a kept connection begins a new one too.
    pub(super) knock_every: u32,
    /// Least time for the answer on a second connection.
    pub(super) patience: Duration,
    kept: Mutex<Option<Kept<L>>>,
    beside: Mutex<Beside>,
    /// Whether the next check is to use a connection of its own.
    renew: AtomicBool,
}

impl<L: Send> Keeper<L> {
    /// Keeps connections if `keep_alive`.
    pub(super) fn new(keep_alive: bool) -> Self {
        Self {
            fresh_every: if keep_alive { FRESH_EVERY } else { 1 },
            knock_every: 1,
            patience: PATIENCE,
            kept: Mutex::new(None),
            beside: Mutex::default(),
            renew: AtomicBool::new(false),
        }
    }

    /// One with the same settings for another target.
    pub(super) fn sibling(&self) -> Self {
        Self {
            fresh_every: self.fresh_every,
            knock_every: self.knock_every,
            patience: self.patience,
            kept: Mutex::new(None),
            beside: Mutex::default(),
            renew: AtomicBool::new(false),
        }
    }

    /// Has the next check use a connection of its own, which is closed after it.
    pub(super) fn renew(&self) {
        self.renew.store(true, Ordering::Relaxed);
    }

    /// Whether the server answers on one connection at a time only.
    pub(super) fn serves_one(&self) -> bool {
        *self.beside() == Beside::Starved
    }

    /// Sends the request over the kept connection or a new one. If a kept connection is dead, the request is sent once
    /// more on a new one before the failure counts.
    pub(super) async fn ask<E: Exchange<Link = L>>(
        &self,
        exchange: &E,
        route: Route,
        budget: &mut Budget,
    ) -> Result<E::Answer, CheckError> {
        let target = budget.target;
        let taken = self.kept().take().filter(|kept| kept.target == target);
        let keeps = !self.renew.swap(false, Ordering::Relaxed) && self.fresh_every > 1 && !self.serves_one();
        let mut old = None;
        if let Some(mut kept) = taken.filter(|_| keeps)
            && exchange.is_ready(&mut kept.link).await
        {
            if kept.uses >= self.fresh_every {
                old = Some(kept.link);
            } else {
                exchange.recheck(target, &kept.link)?;
                if kept.uses % self.knock_every.max(1) == 0 {
                    budget.knock(route, true).await?;
                }
                match exchange.ask(budget, kept.link, false).await {
                    Err(error) if gone_stale(&error) => {}
                    Err(error) => return Err(error),
                    Ok((answer, link)) => {
                        self.keep(link, target, kept.uses + 1);
                        return Ok(answer);
                    }
                }
            }
        }
        let started = Instant::now();
        let (answer, link) = match old {
            Some(old) => self.ask_beside(exchange, budget, old, Duration::ZERO).await?,
            None => match ask_on_new_connection(exchange, budget, !keeps).await {
                Err(error) => {
                    // The next server on the port may be another one.
                    if matches!(error, CheckError::Refused(_)) {
                        *self.beside() = Beside::Unknown;
                    }
                    return Err(error);
                }
                answered => answered?,
            },
        };
        let Some(link) = link.filter(|_| keeps) else {
            return Ok(answer);
        };
        if *self.beside() == Beside::Served {
            self.keep(Some(link), target, 1);
        } else if let Ok((_, link)) = self.ask_beside(exchange, budget, link, started.elapsed()).await {
            // Its answer does not count for this check, which has one.
            self.keep(link, target, 1);
        }
        Ok(answer)
    }

    /// Sends the request over a new connection beside an `old` one, to test whether the server serves both; `usual` is
    /// the time that an answer takes. Returns the connection only if it does.
    async fn ask_beside<E: Exchange<Link = L>>(
        &self,
        exchange: &E,
        budget: &mut Budget,
        old: L,
        usual: Duration,
    ) -> Answered<E> {
        let patience = (usual * PATIENCE_FACTOR)
            .max(self.patience)
            .min(budget.left() / 2);
        let alone = {
            let mut attempt = pin!(ask_on_new_connection(exchange, budget, false));
            match time::timeout(patience, attempt.as_mut()).await {
                Ok(Ok(answered)) => {
                    *self.beside() = Beside::Served;
                    return Ok(answered);
                }
                Ok(Err(_)) => {
                    drop(old);
                    None
                }
                Err(_) => {
                    drop(old);
                    Some(attempt.await)
                }
            }
        };
        let (answer, _) = match alone {
            Some(answered) => answered?,
            None => ask_on_new_connection(exchange, budget, true).await?,
        };
        let mut beside = self.beside();
        *beside = match *beside {
            Beside::Unknown | Beside::Served => Beside::Doubtful,
            Beside::Doubtful | Beside::Starved => Beside::Starved,
        };
        Ok((answer, None))
    }

    fn keep(&self, link: Option<L>, target: SocketAddr, uses: u32) {
        *self.kept() = link.map(|link| Kept { link, target, uses });
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept<L>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beside(&self) -> MutexGuard<'_, Beside> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the request over a new connection.
async fn ask_on_new_connection<E: Exchange>(exchange: &E, budget: &mut Budget, last: bool) -> Answered<E> {
    let link = exchange.connect(budget).await?;
    exchange.ask(budget, link, last).await
}

/// Whether a failure on a kept connection may only mean that the server had given it up. It may do so at any time: by
/// closing it, by GOAWAY, also by 408 (RFC 9110 section 15.5.9), and gRPC's servers by UNAVAILABLE.
fn gone_stale(error: &CheckError) -> bool {
    if let CheckError::Grpc {
        problem: GrpcProblem::Call { name, .. },
        ..
    } = error
    {
        return name == "UNAVAILABLE";
    }
    matches!(
        error,
        CheckError::Reset { .. }
            | CheckError::Closed { .. }
            | CheckError::Connection { .. }
            | CheckError::Http2 { .. }
            | CheckError::Status { status: 408, .. }
    )
}
