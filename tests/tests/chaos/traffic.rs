//! Clients of every service: flows that stay, new flows all the time, and a check of each answer. It names its backend and repeats what
//! was sent, so that a wrong backend, a mixed-up flow and damaged bytes show.
#![expect(
    clippy::disallowed_methods,
    reason = "clients pause between requests; no test waits for them"
)]

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use lb_tests::{netns::Netns, wait};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

use crate::exchange::{Failure, connect, exchange, named, open};

/// Flows of each service that stay.
const TCP_FLOWS: usize = 3;
const UDP_FLOWS: usize = 2;
/// Longest wait for the echo of a datagram, which is not repeated; where datagrams may get lost.
const UDP_PATIENCE: Duration = Duration::from_secs(10);
const UDP_LOST: Duration = Duration::from_millis(500);
/// Largest messages. Those over TCP take several packets, which do not fit a tunnel as the client makes them at first.
const TCP_BYTES: usize = 3_000;
const UDP_BYTES: usize = 1_000;
/// Source ports of new flows.
const FIRST_PORT: u16 = 1_024;
const LAST_PORT: u16 = 32_767;
/// Longest wait for flows to go on.
const LIMIT: Duration = Duration::from_secs(90);

/// What may happen to flows while a fault lasts. Established TCP connections go on in any case, and no answer comes from a wrong backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum May {
    /// Nothing: not a single datagram is lost.
    LoseNothing,
    /// Packets find no way for a while: datagrams get lost, and new connections fail.
    LosePackets,
}

/// A service as its clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) is_udp: bool,
}

/// What clients have seen.
pub(crate) struct Board {
    pace: Duration,
    stop: AtomicBool,
    lossy: AtomicBool,
    /// Answers of each client.
    answers: Vec<AtomicU64>,
    names: Mutex<Vec<String>>,
    /// Datagrams and new connections that were lost while that was allowed.
    lost: AtomicU64,
    violations: Mutex<Vec<String>>,
    /// Services and backends that must not get new flows.
    barred: Mutex<BTreeSet<(String, String)>>,
}

/// A client of a service.
struct Client {
    board: Arc<Board>,
    index: usize,
    target: Target,
    rng: Rng,
    /// The port of the last new flow.
    port: u16,
}

/// Clients that run until they are stopped.
pub(crate) struct Traffic {
    pub(crate) board: Arc<Board>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Traffic {
    /// Starts the clients of all services, with `pace` between two requests of each.
    pub(crate) fn start(ns: &Netns, targets: &[Target], pace: Duration, seed: u64) -> Result<Self> {
        let of = |target: &Target| if target.is_udp { UDP_FLOWS } else { TCP_FLOWS } + 1;
        let count: usize = targets.iter().map(of).sum();
        let board = Arc::new(Board {
            pace,
            stop: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
            answers: (0..count).map(|_| AtomicU64::new(0)).collect(),
            names: Mutex::default(),
            lost: AtomicU64::new(0),
            violations: Mutex::default(),
            barred: Mutex::default(),
        });
        let mut clients = Vec::new();
        for target in targets {
            for flow in 0..of(target) {
                let index = clients.len();
                let name = match flow {
                    0 => format!("new flows of {}", target.name),
                    _ => format!("flow {flow} of {}", target.name),
                };
                lock(&board.names).push(name);
                let client = Client {
                    board: Arc::clone(&board),
                    index,
                    target: target.clone(),
                    rng: Rng::with_seed(seed.wrapping_add(index as u64)),
                    port: FIRST_PORT,
                };
                clients.push((client, flow == 0));
            }
        }
        let thread = ns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                for (client, is_new) in clients {
                    running.spawn(client.run(is_new));
                }
                while running.join_next().await.is_some() {}
            });
            Ok(())
        })?;
        Ok(Self {
            board,
            thread: Some(thread),
        })
    }

    /// Waits until every client has got `rounds` answers more.
    pub(crate) fn wait_rounds(&self, rounds: u64) -> Result<()> {
        let board = &self.board;
        let goal: Vec<u64> = board
            .answers
            .iter()
            .map(|count| count.load(SeqCst) + rounds)
            .collect();
        let late = || -> Vec<String> {
            let counts = board.answers.iter().zip(&goal).enumerate();
            let late = counts.filter(|(_, (count, goal))| count.load(SeqCst) < **goal);
            let names = lock(&board.names);
            late.filter_map(|(index, _)| names.get(index).cloned()).collect()
        };
        wait::until_true("every client gets answers", LIMIT, || {
            self.verdict()?;
            Ok(late().is_empty())
        })
        .with_context(|| format!("without answers: {:?}", late()))
    }

    /// Fails if a client has seen what may not be.
    pub(crate) fn verdict(&self) -> Result<()> {
        let violations = lock(&self.board.violations);
        let first: Vec<_> = violations.iter().take(5).collect();
        ensure!(
            violations.is_empty(),
            "{} violations, first: {first:#?}",
            violations.len()
        );
        Ok(())
    }

    /// Says what may happen from now on.
    pub(crate) fn allow(&self, may: May) {
        self.board.lossy.store(may == May::LosePackets, SeqCst);
    }

    /// Datagrams and connections lost so far while that was allowed.
    pub(crate) fn lost(&self) -> u64 {
        self.board.lost.load(SeqCst)
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.board.answers.iter().map(|count| count.load(SeqCst)).sum()
    }

    /// From now on no new flow of the service may reach the backend, or any may again.
    pub(crate) fn bar(&self, service: &str, backend: &str, is_barred: bool) {
        let (mut barred, pair) = (lock(&self.board.barred), (service.to_owned(), backend.to_owned()));
        if is_barred {
            barred.insert(pair);
        } else {
            barred.remove(&pair);
        }
    }

    /// Ends all clients.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.board.stop.store(true, SeqCst);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the clients panicked"))???;
        self.verdict()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.board.stop.store(true, SeqCst);
    }
}

impl Board {
    fn runs(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    fn violation(&self, what: String) {
        // The end of the test breaks connections, too.
        if self.runs() {
            lock(&self.violations).push(what);
        }
    }
}

impl Client {
    async fn run(mut self, is_new: bool) {
        while self.board.runs() {
            match (is_new, self.target.is_udp) {
                (true, false) => self.new_connection().await,
                (true, true) => self.new_datagram().await,
                (false, false) => self.connection().await,
                (false, true) => self.datagrams().await,
            }
            sleep(self.board.pace).await;
        }
    }

    fn answered(&self) {
        self.board.answers[self.index].fetch_add(1, SeqCst);
    }

    /// A failure of a flow that is not established, or of a datagram. `was_lossy`: when it began.
    fn failed(&self, was_lossy: bool, failure: &Failure) {
        let may_be = was_lossy || self.board.lossy.load(SeqCst);
        match failure {
            Failure::Lost(_) if may_be => {
                self.board.lost.fetch_add(1, SeqCst);
            }
            Failure::Lost(what) | Failure::Wrong(what) => {
                self.board.violation(format!("{}: {what}", self.target.name));
            }
        }
    }

    /// A port that no flow of this service had before: one that had would be that flow, which has its backend. The kernel picks others.
    fn fresh_port(&mut self) -> u16 {
        self.port = match self.port {
            LAST_PORT.. => FIRST_PORT,
            port => port + 1,
        };
        self.port
    }

    fn payload(&mut self, most: usize) -> Vec<u8> {
        let length = self.rng.usize(8..most);
        let mut payload = vec![0; length];
        self.rng.fill(&mut payload);
        payload
    }

    /// A connection that stays; a new one once it is lost.
    async fn connection(&mut self) {
        let was_lossy = self.board.lossy.load(SeqCst);
        let mut stream = match connect(self.target.address, 0).await {
            Ok(stream) => stream,
            Err(failure) => return self.failed(was_lossy, &failure),
        };
        let (mut owner, mut answers) = (None, 0_u64);
        while self.board.runs() {
            let payload = self.payload(TCP_BYTES);
            match exchange(&mut stream, &payload).await {
                Ok(name) if owner.as_ref().is_none_or(|owner| *owner == name) => owner = Some(name),
                Ok(name) => {
                    let what = format!("answered by {name} after {owner:?}");
                    return self.failed(was_lossy, &Failure::Wrong(what));
                }
                // Not established yet: no answer has come.
                Err(failure) if answers == 0 => return self.failed(was_lossy, &failure),
                Err(failure) => {
                    let what = format!(
                        "an established connection to {owner:?} was lost after {answers} answers: {failure}"
                    );
                    return self.failed(false, &Failure::Wrong(what));
                }
            }
            answers += 1;
            self.answered();
            sleep(self.board.pace).await;
        }
    }

    /// A connection for one request.
    async fn new_connection(&mut self) {
        let was_lossy = self.board.lossy.load(SeqCst);
        let barred = lock(&self.board.barred).clone();
        let payload = self.payload(TCP_BYTES);
        let port = self.fresh_port();
        let result = match connect(self.target.address, port).await {
            Ok(mut stream) => exchange(&mut stream, &payload).await,
            Err(failure) => Err(failure),
        };
        self.judge_new(was_lossy, &barred, result);
    }

    /// A flow of one datagram.
    async fn new_datagram(&mut self) {
        let was_lossy = self.board.lossy.load(SeqCst);
        let barred = lock(&self.board.barred).clone();
        let payload = self.payload(UDP_BYTES);
        let port = self.fresh_port();
        let result = match open(self.target.address, port).await {
            Ok(socket) => self.echo(&socket, 0, &payload).await,
            Err(failure) => Err(failure),
        };
        self.judge_new(was_lossy, &barred, result);
    }

    fn judge_new(
        &self,
        was_lossy: bool,
        barred: &BTreeSet<(String, String)>,
        result: Result<String, Failure>,
    ) {
        match result {
            Ok(name) => {
                let pair = (self.target.name.clone(), name);
                // Barred before it began, and still.
                if barred.contains(&pair) && lock(&self.board.barred).contains(&pair) {
                    let what = format!("a new flow reached {}, which takes none", pair.1);
                    self.failed(was_lossy, &Failure::Wrong(what));
                }
                self.answered();
            }
            Err(failure) => self.failed(was_lossy, &failure),
        }
    }

    /// Datagrams of one flow.
    async fn datagrams(&mut self) {
        let was_lossy = self.board.lossy.load(SeqCst);
        let socket = match open(self.target.address, 0).await {
            Ok(socket) => socket,
            Err(failure) => return self.failed(was_lossy, &failure),
        };
        let (mut owner, mut number) = (None, 0_u64);
        while self.board.runs() {
            let was_lossy = self.board.lossy.load(SeqCst);
            let payload = self.payload(UDP_BYTES);
            number += 1;
            match self.echo(&socket, number, &payload).await {
                Ok(name) if owner.as_ref().is_none_or(|owner| *owner == name) => {
                    owner = Some(name);
                    self.answered();
                }
                Ok(name) => {
                    let what = format!("datagram {number} was answered by {name} after {owner:?}");
                    return self.failed(was_lossy, &Failure::Wrong(what));
                }
                Err(failure) => self.failed(was_lossy, &failure),
            }
            sleep(self.board.pace).await;
        }
    }

    /// Sends a datagram, and gives the name of the backend that echoes it.
    async fn echo(&self, socket: &UdpSocket, number: u64, payload: &[u8]) -> Result<String, Failure> {
        let datagram = [&number.to_be_bytes()[..], payload].concat();
        let began = Instant::now();
        let lost = |what: &dyn fmt::Display| Failure::Lost(format!("datagram {number}: {what}"));
        socket.send(&datagram).await.map_err(|e| lost(&e))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            // A fault may begin while it waits.
            let patience = if self.board.lossy.load(SeqCst) {
                UDP_LOST
            } else {
                UDP_PATIENCE
            };
            let Some(left) = patience.checked_sub(began.elapsed()) else {
                return Err(lost(&format!("no echo within {patience:?}")));
            };
            let received = timeout(left.min(UDP_LOST), socket.recv(&mut buffer)).await;
            let length = match received {
                Ok(Ok(length)) => length,
                // An ICMP error about an earlier one.
                Ok(Err(error)) => return Err(lost(&error)),
                Err(_) => continue,
            };
            let (name, echoed) = named(&buffer[..length])?;
            if echoed == datagram {
                return Ok(name);
            }
            // That of an earlier one, which came late.
            let earlier = echoed.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            if earlier.is_none_or(|earlier| earlier >= number) {
                return Err(Failure::Wrong(format!("datagram {number}: another echo")));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
