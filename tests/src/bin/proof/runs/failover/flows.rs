//! New flows at a steady rate, each on a connection of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use lb_tests::netns::Netns;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

/// A flow that has no answer by then is lost. Shorter than the time after which a client repeats its SYN, which might reach another backend.
pub(super) const LIMIT: Duration = Duration::from_millis(900);

/// A flow, when it has ended.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) begun: Instant,
    /// Name of the server that answered.
    pub(super) answered_by: Option<String>,
}

/// A load that runs until it is stopped or dropped.
pub(super) struct Flows {
    seen: Vec<Arc<Mutex<Vec<Flow>>>>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Flows {
    /// Begins a flow to each target each `period`.
    pub(super) fn start(ns: &Netns, targets: &[SocketAddr], period: Duration) -> Result<Self> {
        let seen: Vec<_> = targets.iter().map(|_| Arc::default()).collect();
        let cancel = CancellationToken::new();
        let loads: Vec<_> = targets.iter().copied().zip(seen.iter().cloned()).collect();
        let end = cancel.clone();
        let thread = ns.spawn(move || run(loads, period, &end))?;
        Ok(Self {
            seen,
            cancel,
            thread: Some(thread),
        })
    }

    /// The flows to a target that have ended so far, in the order of their ends.
    pub(super) fn seen<T>(&self, target: usize, look: impl FnOnce(&[Flow]) -> T) -> Option<T> {
        let flows = self
            .seen
            .get(target)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(look(&flows))
    }

    /// Ends the load, and gives its flows by target.
    pub(super) fn stop(mut self) -> Result<Vec<Vec<Flow>>> {
        self.cancel.cancel();
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the load panicked"))???;
        let take = |flows: &Arc<Mutex<Vec<Flow>>>| {
            std::mem::take(&mut *flows.lock().unwrap_or_else(PoisonError::into_inner))
        };
        Ok(self.seen.iter().map(take).collect())
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

type Load = (SocketAddr, Arc<Mutex<Vec<Flow>>>);

fn run(loads: Vec<Load>, period: Duration, cancel: &CancellationToken) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cancel.run_until_cancelled(async {
        let mut ticks = time::interval(period);
        // After a pause of the machine, flows are not begun all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (target, flows) in &loads {
                let (target, flows) = (*target, Arc::clone(flows));
                tokio::spawn(async move {
                    let begun = Instant::now();
                    let answer = time::timeout(LIMIT, ask(target)).await;
                    let answered_by = answer.ok().and_then(|answer| answer.ok());
                    flows
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Flow { begun, answered_by });
                });
            }
        }
    }));
    Ok(())
}

/// Asks for the name of the server.
async fn ask(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    // The server ends the connection after the body.
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other("another status"));
    }
    Ok(body.to_owned())
}
