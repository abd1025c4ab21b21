//! Runs the engine: sockets, timers and channels around its decisions, on a thread of its own.

use std::{
    collections::{BTreeMap, HashMap},
    io, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lb_common::counters::Signals;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    agent::{AgentHandle, AgentTask},
    board::{CheckStatuses, StatusBoard},
    clock,
    engine::{CheckNo, Engine},
    environment::{Check as _, Environment, RealEnvironment},
    error::{CheckError, LocalError},
    memory::Memory,
    metrics::HealthMetrics,
    phase::Moment,
    priority,
    probe::Found,
    probe_route::Paths,
    report::{Report, Reports},
    status::{CheckSpec, HealthEvent, LastCheck},
    target::TargetId,
};
use crate::health_state::Health;

/// Depth of the event channel. When it is full, the latest verdict of each backend waits outside it: no verdict is
/// lost, only intermediate ones of a receiver that does not keep up.
pub const EVENT_DEPTH: usize = 1024;

/// Depth of the channel for passive signals. When it is full, the sender retries.
pub const SIGNAL_DEPTH: usize = 16;

/// Checks in flight at most, unless configured otherwise. Each has a descriptor and some kilobytes at most.
pub const MAX_IN_FLIGHT: usize = 4096;

/// How the engine runs.
#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// Checks in flight at most.
    pub max_in_flight: usize,
    /// Decides about jitter and phases: each balancer has its own, so that they do not check in step, and keeps it
    /// over a restart.
    pub seed: u64,
}

impl HealthConfig {
    /// [`MAX_IN_FLIGHT`] and the given seed.
    pub fn new(seed: u64) -> Self {
        Self {
            max_in_flight: MAX_IN_FLIGHT,
            seed,
        }
    }
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No event loop.
    #[error("cannot make the event loop of health checks")]
    EventLoop(#[source] io::Error),
    /// No thread.
    #[error("cannot start the thread of health checks")]
    Thread(#[source] io::Error),
}

/// Controls the engine and reads its results. Dropping all handles stops the engine.
#[derive(Clone, Debug)]
pub struct HealthHandle<I: TargetId> {
    specs: watch::Sender<Vec<CheckSpec<I>>>,
    signals: mpsc::Sender<BackendSignals<I>>,
    pings: mpsc::Sender<oneshot::Sender<()>>,
    board: StatusBoard<I>,
    reports: Reports,
    paths: Arc<OnceLock<Arc<dyn Paths>>>,
    recalled: Arc<Mutex<Recalled<I>>>,
    agents: AgentHandle<I>,
}

/// Memories of an earlier process, by backend and its address.
pub type Recalled<I> = BTreeMap<I, (SocketAddr, Memory)>;

/// Passive signals by backend.
type BackendSignals<I> = Vec<(I, Signals)>;

/// The engine has not taken passive signals: it is busy with earlier ones, or has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the engine of health checks does not listen")]
pub struct NotTaken;

impl<I: TargetId> HealthHandle<I> {
    /// Makes the checks equal to `specs`, soon after the call. Unchanged checks are not disturbed and keep their health
    /// state. Changed ones keep it too and begin a new schedule, unless the address changed: then `initial` counts.
    /// Checks that are not in `specs` stop. Only the latest call matters. Events of checks that were removed may still
    /// be on their way.
    pub fn update(&self, specs: Vec<CheckSpec<I>>) {
        self.specs.send_replace(specs);
    }

    /// Lets the first checks continue from an earlier process's memories. Call it before [`Self::update`].
    pub fn recall(&self, recalled: Recalled<I>) {
        *self.recalled.lock().unwrap_or_else(PoisonError::into_inner) = recalled;
    }

    /// Enables checks through the VIP. Call it once, before the first such check: they cannot be made otherwise.
    pub fn lead(&self, paths: Arc<dyn Paths>) {
        // A second call changes nothing.
        let _ = self.paths.set(paths);
    }

    /// Sends the passive signals of backends since the last call. Backends without checks are ignored.
    ///
    /// # Errors
    /// [`NotTaken`]: send them again with the next ones.
    pub fn take_signals(&self, signals: Vec<(I, Signals)>) -> Result<(), NotTaken> {
        self.signals.try_send(signals).map_err(|_| NotTaken)
    }

    /// Takes a report about `target`, the address that a check of kind push has as its target. It is looked at at once.
    pub fn report(&self, target: SocketAddr, report: Report) {
        self.reports.put(target, report);
    }

    /// The agents of backends.
    pub fn agents(&self) -> &AgentHandle<I> {
        &self.agents
    }

    /// The state of all checks now: one allocation, no copy.
    pub fn snapshot(&self) -> Arc<CheckStatuses<I>> {
        self.board.snapshot()
    }

    /// Returns when the engine's loop has run since the call; `false` if it has stopped. A frozen engine does not answer.
    pub async fn answers(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.pings.send(answer).await.is_ok() && answered.await.is_ok()
    }

    /// Returns when the engine has stopped, by request or not.
    pub async fn stopped(&self) {
        self.specs.closed().await;
    }
}

/// The engine on a thread of its own.
#[derive(Debug)]
pub struct HealthTask;

/// The engine's loop.
struct Runner<I: TargetId, O: Environment> {
    environment: O,
    engine: Engine<I>,
    specs: watch::Receiver<Vec<CheckSpec<I>>>,
    signals: mpsc::Receiver<BackendSignals<I>>,
    pings: mpsc::Receiver<oneshot::Sender<()>>,
    events: mpsc::Sender<HealthEvent<I>>,
    outbox: BTreeMap<I, HealthEvent<I>>,
    probes: HashMap<CheckNo, (SocketAddr, Duration, Arc<O::Check>)>,
    running: JoinSet<Finished>,
    aborts: HashMap<CheckNo, AbortHandle>,
    started: HashMap<Id, (CheckNo, Instant)>,
    reports: Reports,
    recalled: Arc<Mutex<Recalled<I>>>,
}

/// A check that ended.
#[derive(Debug)]
struct Finished {
    found: Found,
    latency: Duration,
}

impl HealthTask {
    /// Starts the engine, without checks, on a thread of its own, so that nothing else in the process delays checks.
    /// It runs until `cancel`, or until all handles are dropped.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be made.
    pub fn spawn<I: TargetId>(
        config: HealthConfig,
        metrics: HealthMetrics,
        cancel: CancellationToken,
    ) -> Result<(HealthHandle<I>, mpsc::Receiver<HealthEvent<I>>), SpawnError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SpawnError::EventLoop)?;
        let environment = RealEnvironment::default();
        let paths = Arc::clone(&environment.paths);
        let (agents, agent_handle) = AgentTask::new(config.seed, metrics.agents.clone());
        let (task, handle, receiver) = Runner::new(config, metrics, environment, agent_handle);
        let handle = HealthHandle { paths, ..handle };
        let both = async move { tokio::join!(task.run(cancel.clone()), agents.run(cancel)) };
        thread::Builder::new()
            .name("lb-health".to_owned())
            .spawn(move || {
                priority::prefer_this_thread();
                runtime.block_on(both);
            })
            .map_err(SpawnError::Thread)?;
        Ok((handle, receiver))
    }
}

impl<I: TargetId, O: Environment> Runner<I, O> {
    fn new(
        config: HealthConfig,
        metrics: HealthMetrics,
        environment: O,
        agents: AgentHandle<I>,
    ) -> (Self, HealthHandle<I>, mpsc::Receiver<HealthEvent<I>>) {
        let board = StatusBoard::default();
        let (sender, specs) = watch::channel(Vec::new());
        let (events, receiver) = mpsc::channel(EVENT_DEPTH);
        let (teller, signals) = mpsc::channel(SIGNAL_DEPTH);
        let (pinger, pings) = mpsc::channel(1);
        let task = Self {
            environment,
            engine: Engine::new(config.max_in_flight, config.seed, metrics, board.clone()),
            specs,
            signals,
            pings,
            events,
            outbox: BTreeMap::new(),
            probes: HashMap::new(),
            running: JoinSet::new(),
            aborts: HashMap::new(),
            started: HashMap::new(),
            reports: Reports::default(),
            recalled: Arc::default(),
        };
        let handle = HealthHandle {
            specs: sender,
            signals: teller,
            pings: pinger,
            board,
            reports: task.reports.clone(),
            paths: Arc::default(),
            recalled: Arc::clone(&task.recalled),
            agents,
        };
        (task, handle, receiver)
    }

    async fn run(mut self, cancel: CancellationToken) {
        loop {
            let passed = self.engine.pass(self.moment());
            self.publish(passed);
            self.start_due();
            for memo in self.engine.memos() {
                self.outbox
                    .entry(memo.id.clone())
                    .and_modify(|event| event.memory = memo.memory.clone())
                    .or_insert(memo);
            }
            self.deliver();
            let deadline = self.engine.next_deadline();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = self.specs.changed() => match changed {
                    Ok(()) => self.update(),
                    Err(_) => return,
                },
                Some(joined) = self.running.join_next_with_id() => {
                    self.finish(joined);
                    while let Some(joined) = self.running.try_join_next_with_id() {
                        self.finish(joined);
                    }
                }
                Some(signals) = self.signals.recv() => {
                    let events = self.engine.take_signals(signals, self.moment());
                    self.publish(events);
                }
                Some(ping) = self.pings.recv() => drop(ping.send(())),
                targets = self.reports.news() => {
                    self.engine.hasten(&targets, clock::now());
                }
                () = clock::until(deadline) => {}
                () = room(&self.events), if !self.outbox.is_empty() => {}
            }
        }
    }

    fn update(&mut self) {
        let specs = self.specs.borrow_and_update().clone();
        let recalled = mem::take(&mut *self.recalled.lock().unwrap_or_else(PoisonError::into_inner));
        if !recalled.is_empty() {
            self.engine.recall(recalled);
        }
        let changes = self.engine.update(specs, self.moment());
        for no in changes.stopped {
            self.probes.remove(&no);
            // Dropping the check closes its socket: the target is not checked twice at a time by its successor.
            if let Some(check) = self.aborts.remove(&no) {
                check.abort();
            }
        }
        let checks = self.environment.checks(&changes.started, &self.reports);
        for (new, check) in changes.started.iter().zip(checks) {
            let probe = (new.target, new.settings.timeout, Arc::new(check));
            self.probes.insert(new.no, probe);
        }
        let targets = self.probes.values().map(|(target, ..)| *target).collect();
        self.reports.retain(&targets);
        self.engine.count_in_flight();
        self.publish(changes.events);
        self.outbox.extend(
            changes
                .reminders
                .into_iter()
                .map(|event| (event.id.clone(), event)),
        );
    }

    fn start_due(&mut self) {
        let now = clock::now();
        while let Some(no) = self.engine.start_due(now) {
            let Some((target, timeout, probe)) = self.probes.get(&no) else {
                continue;
            };
            let (target, timeout, probe) = (*target, *timeout, Arc::clone(probe));
            if !self.engine.is_settled(no) {
                probe.renew();
            }
            let check = self.running.spawn(async move {
                let started = time::Instant::now();
                Finished {
                    found: probe.check(target, timeout).await,
                    latency: started.elapsed(),
                }
            });
            self.started.insert(check.id(), (no, now));
            self.aborts.insert(no, check);
        }
    }

    fn finish(&mut self, joined: Result<(Id, Finished), JoinError>) {
        let (id, finished) = match joined {
            Ok((id, finished)) => (id, Some(finished)),
            Err(error) => (error.id(), None),
        };
        let Some((no, started)) = self.started.remove(&id) else {
            return;
        };
        let Some((target, ..)) = self.probes.get(&no) else {
            return;
        };
        self.aborts.remove(&no);
        let now = self.moment();
        let Finished {
            found:
                Found {
                    outcome,
                    parts,
                    certificate,
                    serves_one,
                },
            latency,
        } = finished.unwrap_or_else(|| Finished {
            found: Found {
                outcome: Err(CheckError::Local {
                    target: *target,
                    error: LocalError::Aborted,
                }),
                parts: Arc::default(),
                certificate: None,
                serves_one: false,
            },
            latency: now.instant.saturating_duration_since(started),
        });
        let last = LastCheck {
            outcome,
            latency,
            at: now.wall,
            parts,
            certificate,
            serves_one,
        };
        let events = self.engine.finish(no, started, last, now);
        self.engine.count_in_flight();
        self.publish(events);
    }

    fn publish(&mut self, events: Vec<HealthEvent<I>>) {
        for event in events {
            let (service, backend) = (event.id.service().as_ref(), event.id.backend());
            match event.health {
                Health::Up | Health::Unchecked => {
                    tracing::info!(%service, %backend, health = %event.health, detail = event.detail, "health changed");
                }
                Health::Down => {
                    tracing::warn!(%service, %backend, health = %event.health, detail = event.detail, "health changed");
                }
            }
            self.outbox.insert(event.id.clone(), event);
        }
    }

    fn deliver(&mut self) {
        while let Some((id, event)) = self.outbox.pop_first() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.outbox.insert(id, event);
                    return;
                }
                // No receiver of events; snapshots still work.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            instant: clock::now(),
            wall: self.environment.wall(),
        }
    }
}

/// Waits until the channel takes another event, or has no receiver any more.
async fn room<T>(events: &mpsc::Sender<T>) {
    let _ = events.reserve().await;
}

#[cfg(test)]
mod memory;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod tests;
