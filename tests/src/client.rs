//! Load from a client, with every answer and every failure accounted for.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use crate::{
    http::{connect, exchange},
    netns::Netns,
    wait,
};

/// Time between two requests of a busy keep-alive connection.
const KEEP_ALIVE_PACE: Duration = Duration::from_millis(20);

/// Result of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answers by the name of the server.
    pub answers: BTreeMap<String, u64>,
    /// One line for each failure.
    pub errors: Vec<String>,
    /// The longest time that one request took.
    pub slowest: Duration,
}

impl Report {
    /// Answers in all.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Answers of one backend.
    pub fn answers_of(&self, backend: &str) -> u64 {
        self.answers.get(backend).copied().unwrap_or_default()
    }

    /// Share of one backend in all answers, 0 to 1.
    pub fn share(&self, backend: &str) -> f64 {
        self.answers_of(backend) as f64 / self.total().max(1) as f64
    }

    /// Fails with the first errors unless there were none.
    ///
    /// # Errors
    /// As said.
    pub fn ensure_flawless(&self) -> Result<()> {
        let (failed, answers) = (self.errors.len(), self.total());
        let first: Vec<_> = self.errors.iter().take(5).collect();
        ensure!(
            failed == 0,
            "{failed} failed, {answers} were answered, first: {first:?}"
        );
        Ok(())
    }

    /// Fails with the first errors unless there were none and `expected` answers.
    ///
    /// # Errors
    /// As said.
    pub fn ensure_complete(&self, expected: u64) -> Result<()> {
        self.ensure_flawless()?;
        ensure!(
            self.total() == expected,
            "{} answers instead of {expected}",
            self.total()
        );
        Ok(())
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (name, count) in other.answers {
            *self.answers.entry(name).or_default() += count;
        }
        self.errors.extend(other.errors);
        self.slowest = self.slowest.max(other.slowest);
    }

    pub(crate) fn record(
        &mut self,
        what: impl FnOnce() -> String,
        took: Duration,
        result: io::Result<String>,
    ) {
        self.slowest = self.slowest.max(took);
        match result {
            Ok(name) => *self.answers.entry(name).or_default() += 1,
            Err(e) => self.errors.push(format!("{}: {e} after {took:?}", what())),
        }
    }
}

/// Sends a hundred HTTP requests, each on a connection of its own, and gives how many each backend answered.
///
/// # Errors
/// When one of them fails.
pub fn new_flows(ns: &Netns, target: SocketAddr, first_port: u16) -> Result<impl Fn(&str) -> u64 + use<>> {
    const FLOWS: u16 = 100;
    const AT_A_TIME: u32 = 8;
    let report = http_requests(ns, target, first_port, FLOWS, AT_A_TIME)?;
    report.ensure_complete(u64::from(FLOWS))?;
    Ok(move |name: &str| report.answers_of(name))
}

/// Runs `count` pieces of work numbered from 0, `concurrency` at a time, inside a namespace.
///
/// # Errors
/// When threads cannot run there; failures of the work itself are in the report.
pub fn run_many(
    ns: &Netns,
    count: u32,
    concurrency: u32,
    work: impl Fn(u32) -> io::Result<String> + Sync,
) -> Result<Report> {
    let next = AtomicU32::new(0);
    let worker = || {
        let mut report = Report::default();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return report;
            }
            let begin = Instant::now();
            let result = work(i);
            report.record(|| format!("number {i}"), begin.elapsed(), result);
        }
    };
    ns.enter(|| {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..concurrency).map(|_| scope.spawn(worker)).collect();
            let mut report = Report::default();
            for worker in workers {
                report.add(worker.join().map_err(|_| anyhow!("a load thread panicked"))?);
            }
            Ok(report)
        })
    })?
}

/// Sends `count` HTTP requests, each on a connection of its own with a source port of its own from `first_port` up,
/// `concurrency` at a time.
///
/// # Errors
/// As [`run_many`].
pub fn http_requests(
    ns: &Netns,
    target: SocketAddr,
    first_port: u16,
    count: u16,
    concurrency: u32,
) -> Result<Report> {
    run_many(ns, count.into(), concurrency, |i| {
        let port = u16::try_from(u32::from(first_port) + i).map_err(|_| io::ErrorKind::InvalidInput)?;
        let answer = exchange(&mut connect(target, port)?, "/", true)?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    })
}

/// Progress of a keep-alive connection.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    requests: Vec<AtomicU64>,
    failed: AtomicU64,
}

/// Connections that stay open and busy until stopped.
pub struct KeepAlive {
    progress: Arc<Progress>,
    workers: Vec<JoinHandle<Result<Report>>>,
}

impl KeepAlive {
    /// Opens `connections` connections and keeps each one busy with requests.
    ///
    /// # Errors
    /// When threads cannot start; failures of connections are in the report.
    pub fn start(ns: &Netns, target: SocketAddr, connections: usize) -> Result<Self> {
        let requests = (0..connections).map(|_| AtomicU64::new(0)).collect();
        let progress = Arc::new(Progress {
            requests,
            ..Progress::default()
        });
        let workers = (0..connections)
            .map(|i| {
                let progress = Arc::clone(&progress);
                ns.spawn(move || stay_busy(target, i, &progress))
            })
            .collect::<Result<_>>()?;
        Ok(Self { progress, workers })
    }

    /// Waits until every connection has been answered `rounds` times more.
    ///
    /// # Errors
    /// When one has failed, or after a minute.
    pub fn wait_rounds(&self, rounds: u64) -> Result<()> {
        let read = || {
            self.progress
                .requests
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
        };
        let goal: Vec<u64> = read().map(|count| count + rounds).collect();
        wait::until_true("all connections are answered", Duration::from_secs(60), || {
            let failed = self.progress.failed.load(Ordering::Relaxed);
            ensure!(failed == 0, "{failed} keep-alive connections failed");
            Ok(read().zip(&goal).all(|(count, goal)| count >= *goal))
        })
    }

    /// Connections that have failed so far.
    pub fn failed(&self) -> u64 {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Ends all connections. One answer in the report stands for one request.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(mut self) -> Result<Report> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for worker in self.workers.drain(..) {
            report.add(worker.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        Ok(report)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}

fn stay_busy(target: SocketAddr, index: usize, progress: &Progress) -> Report {
    let mut report = Report::default();
    let mut owner: Option<String> = None;
    let result = connect(target, 0).and_then(|mut stream| {
        while !progress.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let name = exchange(&mut stream, "/", false)?.body;
            if let Some(owner) = owner.as_ref().filter(|owner| **owner != name) {
                return Err(io::Error::other(format!("answered by {name} after {owner}")));
            }
            report.record(String::new, begin.elapsed(), Ok(name.clone()));
            owner = Some(name);
            progress.requests[index].fetch_add(1, Ordering::Relaxed);
            wait::pace(KEEP_ALIVE_PACE);
        }
        Ok(())
    });
    if let Err(e) = result {
        progress.failed.fetch_add(1, Ordering::Relaxed);
        let answered = progress.requests[index].load(Ordering::Relaxed);
        report.errors.push(format!(
            "connection {index} of {owner:?} after {answered} answers: {e}"
        ));
    }
    report
}
