//! A load from begin to end: threads that send, and intervals that are added up while they do.

use std::{
    io::{self, IsTerminal, Write},
    mem,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use tokio::{
    signal,
    sync::{mpsc, watch},
    time,
};

use crate::{
    connect::Connector,
    hdr::Log,
    lane::{Load, Meter},
    measured::{Measured, latency},
    options::Plan,
    schedule::Schedule,
    stats::Stats,
    worker::{self, Signals, Times, Worker},
};

/// Length of an interval of the log, and between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(1);
/// What is said where the log cannot be written.
const CANNOT_LOG: &str = "cannot write the log of --hdr: free space, or name another file";

/// Sends a load. `log` gets the latencies of each interval, a terminal the progress. Ends early when it is interrupted.
///
/// # Errors
/// When a thread cannot go on, or the log cannot be written.
pub(crate) async fn run(plan: &Plan, connectors: &[Connector], log: Option<Log>) -> Result<Measured> {
    let (set_begin, begin) = watch::channel(None);
    let load = Arc::new(Load {
        schedule: Schedule::new(plan.rate, plan.warm_up, plan.duration),
        timeout: plan.timeout,
        next: AtomicU64::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let (ended, mut all_ended) = mpsc::channel(1);
    let (opening, mut all_open) = mpsc::channel(1);
    let mut workers = Vec::new();
    for share in worker::shares(plan, connectors) {
        let meter = Meter::new(Stats::new()?);
        workers.push(Worker::start(
            share,
            Arc::clone(&load),
            meter,
            Signals {
                begin: begin.clone(),
                stop: stopped.clone(),
                opening: opening.clone(),
                ended: ended.clone(),
            },
        )?);
    }
    drop((opening, ended));
    let mut sum = Sum::new(log, load.schedule.measured_from())?;
    let mut interrupt = pin!(signal::ctrl_c());
    let mut interrupted = tokio::select! {
        _ = all_open.recv() => false,
        result = &mut interrupt => interruption(result)?,
    };
    let begin = Instant::now();
    if !interrupted {
        set_begin.send_replace(Some(begin));
        sum.begin_log(SystemTime::now() + plan.warm_up)?;
    }
    let mut ticks = time::interval_at(
        (begin + load.schedule.measured_from() + INTERVAL).into(),
        INTERVAL,
    );
    while !interrupted {
        tokio::select! {
            _ = all_ended.recv() => break,
            _ = ticks.tick() => sum.interval(&workers, begin.elapsed())?,
            result = &mut interrupt => interrupted = interruption(result)?,
        }
    }
    // An open loop ends with its last request, a moment before the time is over.
    let until = if interrupted {
        begin.elapsed().min(load.schedule.end())
    } else {
        load.schedule.end()
    };
    let measured = until.saturating_sub(load.schedule.measured_from());
    if interrupted {
        let _ = stop.send(true);
        while all_ended.recv().await.is_some() {}
    } else {
        sum.unsent(&load)?;
    }
    sum.interval(&workers, begin.elapsed())?;
    sum.end_progress();
    let meters: Vec<_> = workers.iter().map(|worker| Arc::clone(&worker.meter)).collect();
    let times: Vec<Times> = workers.into_iter().map(Worker::join).collect::<Result<_>>()?;
    let count = |counter: fn(&Meter) -> &AtomicU64| {
        meters
            .iter()
            .map(|meter| counter(meter).load(Ordering::Relaxed))
            .sum()
    };
    Ok(Measured {
        stats: sum.total,
        measured,
        opened: count(|meter| &meter.opened),
        exchanges: count(|meter| &meter.exchanges),
        cpu: times.iter().map(|times| times.cpu).sum(),
        ran: times.iter().map(|times| times.ran).max().unwrap_or_default(),
    })
}

/// An interruption by the user.
fn interruption(result: io::Result<()>) -> Result<bool> {
    result.context("cannot wait for Ctrl-C").map(|()| true)
}

/// What the threads have measured so far.
struct Sum {
    total: Stats,
    /// Of the current interval.
    interval: Stats,
    /// Empty, to be exchanged for what a thread has measured.
    spare: Stats,
    log: Option<Log>,
    /// When the last interval ended, from the begin of the load.
    until: Duration,
    measured_from: Duration,
    shows_progress: bool,
}

impl Sum {
    fn new(log: Option<Log>, measured_from: Duration) -> Result<Self> {
        let shows_progress = io::stderr().is_terminal();
        if shows_progress {
            let _ = write!(io::stderr(), "opening connections and warming up");
        }
        Ok(Self {
            total: Stats::new()?,
            interval: Stats::new()?,
            spare: Stats::new()?,
            log,
            until: measured_from,
            measured_from,
            shows_progress,
        })
    }

    fn begin_log(&mut self, begin: SystemTime) -> Result<()> {
        let begun = self.log.as_mut().map(|log| log.begin(begin));
        begun.transpose().context(CANNOT_LOG)?;
        Ok(())
    }

    /// Ends an interval `now`, counted from the begin of the load.
    fn interval(&mut self, workers: &[Worker], now: Duration) -> Result<()> {
        for worker in workers {
            mem::swap(&mut *worker.meter.stats(), &mut self.spare);
            self.interval.add(&self.spare)?;
            self.spare.clear();
        }
        let length = now.saturating_sub(self.until);
        if let Some(log) = &mut self.log {
            log.interval(
                self.until.saturating_sub(self.measured_from),
                length,
                self.interval.latencies(),
            )
            .context(CANNOT_LOG)?;
        }
        if self.shows_progress {
            self.show_progress(now, length);
        }
        self.total.add(&self.interval)?;
        self.interval.clear();
        self.until = now;
        Ok(())
    }

    /// Counts the requests that were due and that no lane has claimed: all connections were busy until the end.
    fn unsent(&mut self, load: &Load) -> Result<()> {
        for n in load.next.load(Ordering::Relaxed).. {
            let Some(due) = load.schedule.due(n) else { break };
            if load.schedule.measures(due) {
                self.interval.unsent(load.schedule.end() - due);
            }
        }
        Ok(())
    }

    /// One line that stays in its place. A terminal that is gone is no reason to end.
    fn show_progress(&self, now: Duration, length: Duration) {
        #[allow(clippy::cast_precision_loss, reason = "a figure of few digits")]
        let rate = self.interval.answers as f64 / length.as_secs_f64().max(1e-9);
        let p99 = self
            .interval
            .percentile(99.0)
            .map_or_else(|| "-".to_owned(), latency);
        let errors = self.total.errors() + self.interval.errors();
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{:.0} s: {rate:.0} requests/s, p99 {p99}, {errors} errors",
            now.as_secs_f64()
        );
    }

    fn end_progress(&self) {
        if self.shows_progress {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
