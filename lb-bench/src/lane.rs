//! A lane: one request after the other, over one connection (of HTTP/2 several lanes share one).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time,
};

use crate::{
    connect::Connector,
    deadline::Deadline,
    echo::{TcpEcho, UdpEcho},
    failure::Failure,
    http1::Http1,
    http2::Http2,
    schedule::Schedule,
    stats::{Answer, Stats},
    timer::Timer,
};

/// A closed loop waits so long after a connection that could not be opened, instead of trying again as fast as it can.
const PAUSE: Duration = Duration::from_millis(10);

/// What the lanes of all threads share.
pub(crate) struct Load {
    /// When requests are due.
    pub(crate) schedule: Schedule,
    /// Time limit of a request.
    pub(crate) timeout: Duration,
    /// Number of the next request of an open loop.
    pub(crate) next: AtomicU64,
}

/// What the lanes of a thread measure.
pub(crate) struct Meter {
    stats: Mutex<Stats>,
    /// Exchanges, measured or not.
    pub(crate) exchanges: AtomicU64,
    /// Connections opened.
    pub(crate) opened: AtomicU64,
}

impl Meter {
    /// Nothing measured yet.
    pub(crate) fn new(stats: Stats) -> Self {
        Self {
            stats: Mutex::new(stats),
            exchanges: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// What was measured since somebody took it. The lock is held by the thread's own lanes for one request at a time.
    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection of a lane.
pub(crate) enum Link {
    /// HTTP/1.1.
    Http1(Http1, Connector),
    /// HTTP/2, shared.
    Http2(Arc<Http2>),
    /// TCP echo.
    Tcp(TcpEcho, Connector),
    /// UDP echo.
    Udp(UdpEcho, Connector),
}

/// An exchange that failed.
struct Failed {
    failure: Failure,
    /// Whether no connection could be opened.
    while_opening: bool,
}

/// A request that is to be sent.
struct Turn {
    /// When it was due, from the begin of the load.
    due: Duration,
    /// When it begins.
    begun: Instant,
}

/// A sequence of requests.
pub(crate) struct Lane {
    /// What all share.
    pub(crate) load: Arc<Load>,
    /// The thread's meter.
    pub(crate) meter: Arc<Meter>,
    /// The thread's timer.
    pub(crate) timer: Arc<Timer>,
    /// When the load begins, as soon as the thread knows.
    pub(crate) begin: watch::Receiver<Option<Instant>>,
    /// Its connection.
    pub(crate) link: Link,
    /// Dropped when the connection is open, or could not be opened.
    pub(crate) opening: mpsc::Sender<()>,
}

impl Lane {
    /// Opens the connection, waits for the begin of the load, and sends requests until its end.
    pub(crate) async fn run(mut self) {
        let mut deadline = Deadline::new(self.load.timeout);
        // If this fails, the first request tries again, and counts.
        let opened = self.link.open(&self.meter);
        if deadline.within(Instant::now(), opened).await.is_none() {
            self.link.close().await;
        }
        let Self {
            load,
            meter,
            timer,
            mut begin,
            mut link,
            opening,
        } = self;
        drop(opening);
        let Some(begin) = known(&mut begin).await else {
            return;
        };
        let is_closed_loop = load.schedule.is_closed();
        let turns = Turns {
            load: &load,
            meter: &meter,
            timer: &timer,
            begin,
        };
        // A closed loop begins with the load, also where this task is late.
        let mut now = if is_closed_loop { begin } else { Instant::now() };
        while let Some(turn) = turns.next(now).await {
            let exchange = link.exchange(&meter);
            let result = deadline.within(turn.begun, exchange).await;
            now = Instant::now();
            let result = result.unwrap_or(Err(Failed {
                failure: Failure::Timeout,
                while_opening: false,
            }));
            let pause = is_closed_loop && result.as_ref().is_err_and(|failed| failed.while_opening);
            if result.is_err() {
                link.close().await;
            }
            meter.exchanges.fetch_add(1, Ordering::Relaxed);
            if load.schedule.measures(turn.due) {
                let latency = now.saturating_duration_since(begin + turn.due);
                let result = result.map_err(|failed| failed.failure);
                meter.stats().exchange(&result, latency);
            }
            if pause {
                time::sleep(PAUSE).await;
                now = Instant::now();
            }
        }
    }
}

/// Waits until it is known when the load begins; `None` if it never does.
pub(crate) async fn known(begin: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    begin
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|begin| *begin)
}

/// When the requests of a lane begin.
struct Turns<'a> {
    load: &'a Load,
    meter: &'a Meter,
    timer: &'a Timer,
    begin: Instant,
}

impl Turns<'_> {
    /// Waits for the next request; `None` at the end of the load.
    async fn next(&self, now: Instant) -> Option<Turn> {
        let schedule = &self.load.schedule;
        let since_begin = now.saturating_duration_since(self.begin);
        if schedule.is_closed() {
            return (since_begin < schedule.end()).then_some(Turn {
                due: since_begin,
                begun: now,
            });
        }
        let due = schedule.due(self.load.next.fetch_add(1, Ordering::Relaxed))?;
        let at = self.begin + due;
        let measured = schedule.measures(due);
        if at <= now {
            if since_begin >= schedule.end() {
                if measured {
                    self.meter.stats().unsent(schedule.end() - due);
                }
                return None;
            }
            if measured {
                self.meter.stats().start(now - at, false);
            }
            return Some(Turn { due, begun: now });
        }
        // Without a timer the load ends: its thread reports why.
        self.timer.wait_until(at).await.ok()?;
        let begun = Instant::now();
        if measured {
            self.meter
                .stats()
                .start(begun.saturating_duration_since(at), true);
        }
        Some(Turn { due, begun })
    }
}

impl Link {
    /// Opens the connection, unless it is open.
    async fn open(&mut self, meter: &Meter) -> Result<(), Failure> {
        let opened = match self {
            Self::Http1(link, connector) => link.open(connector).await?,
            Self::Http2(link) => link.keeps_connections() && link.open().await?.is_new,
            Self::Tcp(link, connector) => link.open(connector).await?,
            Self::Udp(link, connector) => link.open(connector.address).await?,
        };
        meter.opened.fetch_add(opened.into(), Ordering::Relaxed);
        Ok(())
    }

    async fn exchange(&mut self, meter: &Meter) -> Result<Answer, Failed> {
        let while_opening = |failure| Failed {
            failure,
            while_opening: true,
        };
        let failed = |failure| Failed {
            failure,
            while_opening: false,
        };
        let count = |is_new: bool| meter.opened.fetch_add(is_new.into(), Ordering::Relaxed);
        let result = match self {
            Self::Http1(link, connector) => {
                count(link.open(connector).await.map_err(while_opening)?);
                link.exchange().await
            }
            Self::Http2(link) => {
                let connection = link.open().await.map_err(while_opening)?;
                count(connection.is_new);
                link.exchange(connection).await
            }
            Self::Tcp(link, connector) => {
                count(link.open(connector).await.map_err(while_opening)?);
                link.exchange().await
            }
            Self::Udp(link, connector) => {
                count(link.open(connector.address).await.map_err(while_opening)?);
                link.exchange().await
            }
        };
        result.map_err(failed)
    }

    /// Closes the connection; of HTTP/2, lanes that share it open another for their next requests.
    async fn close(&mut self) {
        match self {
            Self::Http1(link, _) => link.close(),
            Self::Http2(link) => link.close().await,
            Self::Tcp(link, _) => link.close(),
            Self::Udp(link, _) => link.close(),
        }
    }
}
