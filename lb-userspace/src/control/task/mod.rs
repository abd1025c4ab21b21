//! The control task's loop.

mod agent_updates;
mod change;
mod converge;
mod first;
mod report;
mod timers;
mod ways;
mod weight_pace;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::report::report_replaced;
use self::weight_pace::WeightPace;
use super::{
    ApplyMetrics, ControlHandle, ControlView, Inherited, Observer, REQUEST_DEPTH, RefusedFile, Request,
    ports::{AskAgents, ProgramTarget, RunChecks},
    reach::Reach,
    removed::{FLOW_POLL, RemovedBackend},
    verdicts,
};
use crate::{
    clock::{now, until},
    config::Config,
    datapath::{HostAddresses, NextHops, ProgramError},
    events::EventLog,
    health::{CheckId, HealthEvent, agent::AgentView},
    plan::{
        Target,
        target::{Pace, Standings},
    },
    state::{
        agents,
        desired::Desired,
        effective::{self, HealthView},
        names::{BackendName, ServiceName},
        store::Store,
        stored::Stored,
    },
};

/// Time after which a state that could not be programmed is tried again; doubles up to [`RETRY_MAX`].
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest time between two tries.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);

/// The parts of the task.
pub struct Parts<P> {
    /// Programs the data plane.
    pub writer: P,
    /// Keeps the desired state.
    pub store: Arc<dyn Store + Send + Sync>,
    /// Checks backends.
    pub checks: Box<dyn RunChecks>,
    /// Results of checks.
    pub verdicts: mpsc::Receiver<HealthEvent>,
    /// Polls agents.
    pub agents: Box<dyn AskAgents>,
    /// Updates of agents.
    pub agent_updates: watch::Receiver<AgentView>,
    /// How backends are reached.
    pub ways: watch::Receiver<Arc<NextHops>>,
    /// The addresses of this machine.
    pub host: watch::Receiver<Arc<HostAddresses>>,
    /// Counts flows.
    pub observer: Arc<Observer>,
    /// Where events go.
    pub events: Arc<EventLog>,
    /// Where applies are counted.
    pub metrics: ApplyMetrics,
    /// The state to begin with.
    pub stored: Stored,
    /// Why the configuration file of this start is not in force.
    pub refused: Option<RefusedFile>,
    /// State that an earlier daemon left in the maps.
    pub inherited: Inherited,
}

/// Everything that can happen to the task.
enum ControlEvent {
    /// A change was requested.
    Request(Request),
    /// A verdict changed.
    Health(HealthEvent),
    /// Agents reported.
    AgentUpdates,
    /// Backends are reached otherwise.
    Ways,
    /// This machine has other addresses.
    Host,
    /// A deadline has passed.
    Timer,
    /// The daemon leaves.
    Stop,
}

/// When a drain ends by itself, on both clocks: one only goes forward, the other is for people.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    wall: SystemTime,
}

/// Deadlines of drains by backend.
type Deadlines = BTreeMap<(ServiceName, BackendName), Deadline>;

/// When programming is tried again, and how long it waits after the next failure.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    then: Duration,
}

/// Owns desired state, verdicts and removed backends. Not cancel-safe inside a change: it ends between two events.
pub struct ControlTask<P> {
    writer: P,
    store: Arc<dyn Store + Send + Sync>,
    checks: Box<dyn RunChecks>,
    verdicts: mpsc::Receiver<HealthEvent>,
    ask: Box<dyn AskAgents>,
    agent_updates: watch::Receiver<AgentView>,
    ways: watch::Receiver<Arc<NextHops>>,
    host: watch::Receiver<Arc<HostAddresses>>,
    observer: Arc<Observer>,
    events: Arc<EventLog>,
    metrics: ApplyMetrics,
    requests: mpsc::Receiver<Request>,
    publisher: watch::Sender<Arc<ControlView>>,
    desired: Arc<Desired>,
    applied: Option<Arc<Config>>,
    refused: Option<RefusedFile>,
    health: HealthView,
    /// The last agent update of each backend.
    agents: AgentView,
    /// Backends that cannot be reached.
    reach: Reach,
    /// When weights by agents are applied.
    weight_pace: WeightPace,
    /// Weights by agents as last reported in events, in percent.
    reported_percent: BTreeMap<CheckId, u16>,
    lingering: Vec<RemovedBackend>,
    /// When the flows of removed backends are looked at again.
    next_poll: Instant,
    deadlines: Deadlines,
    pace: Pace,
    /// The state that an earlier daemon had programmed for desired backends.
    standings: Standings,
    /// Backends that got no packets before this start and have no health state yet.
    unverified: BTreeSet<CheckId>,
    /// Backends that take flows although they are down, as last reported.
    overruled: BTreeMap<ServiceName, Vec<BackendName>>,
    /// Backups that take new flows, as last reported.
    backups: BTreeSet<(ServiceName, BackendName)>,
    /// When backends in slow start reach their whole weight, as last reported.
    whole_at: BTreeMap<(ServiceName, BackendName), SystemTime>,
    wanted: Arc<Target>,
    programmed: Option<Arc<Target>>,
    failure: Option<String>,
    retry: Option<Retry>,
    /// When a state that is not saved is saved again.
    save_again: Option<Instant>,
    last_apply_ok: bool,
}

impl<P: ProgramTarget> ControlTask<P> {
    /// Programs the first state and begins its checks.
    ///
    /// # Errors
    /// When it cannot be programmed.
    pub async fn start(parts: Parts<P>) -> Result<(Self, ControlHandle), ProgramError> {
        let (sender, requests) = mpsc::channel(REQUEST_DEPTH);
        let Stored { desired, applied } = parts.stored;
        let deadlines = deadlines(&desired, &Deadlines::new());
        let Inherited {
            health,
            memories: _,
            agents,
            lingering,
            slow_start,
            down,
            ring_sizes,
            standings,
            unverified,
        } = parts.inherited;
        let pace = Pace {
            slow_start,
            down,
            ring_sizes,
        };
        let health = verdicts::carried_over(&desired, &health);
        let nothing = effective::target(&Desired::default(), &health, &effective::RemovedBackends::new());
        let nothing = Arc::new(nothing);
        let first = ControlView {
            desired: Arc::clone(&desired),
            wanted: Arc::clone(&nothing),
            programmed: None,
            failure: None,
            lingering: lingering.clone(),
            drain_deadlines: BTreeMap::new(),
            whole_at: BTreeMap::new(),
            last_apply_ok: parts.refused.is_none(),
            applied: applied.clone(),
            refused: parts.refused.clone(),
        };
        let (publisher, view) = watch::channel(Arc::new(first));
        let mut task = Self {
            writer: parts.writer,
            store: parts.store,
            checks: parts.checks,
            verdicts: parts.verdicts,
            ask: parts.agents,
            agent_updates: parts.agent_updates,
            ways: parts.ways,
            host: parts.host,
            observer: parts.observer,
            events: parts.events,
            metrics: parts.metrics,
            requests,
            publisher,
            desired,
            applied,
            last_apply_ok: parts.refused.is_none(),
            refused: parts.refused,
            health,
            reported_percent: agents
                .iter()
                .map(|(id, update)| (id.clone(), update.word.percent))
                .collect(),
            agents,
            reach: Reach::default(),
            weight_pace: WeightPace::default(),
            lingering,
            next_poll: now() + FLOW_POLL,
            deadlines,
            pace,
            standings,
            unverified,
            overruled: BTreeMap::new(),
            backups: BTreeSet::new(),
            whole_at: BTreeMap::new(),
            wanted: Arc::clone(&nothing),
            programmed: None,
            failure: None,
            retry: None,
            save_again: None,
        };
        task.metrics.last_apply(task.last_apply_ok);
        task.note_unsaved();
        // The next hops known by then arrive as the first change.
        task.ways.mark_changed();
        task.first_program().await?;
        task.ask.ask(agents::specs(&task.desired, &task.agents));
        task.publish();
        let handle = ControlHandle {
            requests: sender,
            view,
        };
        Ok((task, handle))
    }

    /// Runs until `cancel`, or until the last handle is dropped.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            match self.next(&cancel).await {
                ControlEvent::Request(request) => {
                    let (change, expected, dry_run, reply) = match request {
                        Request::Change {
                            change,
                            expected,
                            dry_run,
                            reply,
                        } => (change, expected, dry_run, reply),
                        Request::Refused(why) => {
                            self.refuse(why);
                            continue;
                        }
                    };
                    let outcome = self.change(&change, expected, dry_run).await;
                    // The caller may be gone; the change stays.
                    let _ = reply.send(outcome);
                }
                ControlEvent::Health(event) => self.judge(event).await,
                ControlEvent::AgentUpdates => self.hear().await,
                ControlEvent::Ways => self.follow_ways().await,
                ControlEvent::Host => {
                    self.converge().await;
                    self.publish();
                }
                ControlEvent::Timer => self.timer().await,
                ControlEvent::Stop => return,
            }
        }
    }

    async fn next(&mut self, cancel: &CancellationToken) -> ControlEvent {
        let deadline = self.next_deadline();
        tokio::select! {
            biased;
            () = cancel.cancelled() => ControlEvent::Stop,
            Some(event) = self.verdicts.recv() => ControlEvent::Health(event),
            Ok(()) = self.agent_updates.changed() => ControlEvent::AgentUpdates,
            Ok(()) = self.ways.changed() => ControlEvent::Ways,
            Ok(()) = self.host.changed() => ControlEvent::Host,
            request = self.requests.recv() => request.map_or(ControlEvent::Stop, ControlEvent::Request),
            () = until(deadline) => ControlEvent::Timer,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let drains = self.deadlines.values().map(|deadline| deadline.at);
        let retry = self.retry.map(|retry| retry.at);
        let flows = (!self.lingering.is_empty()).then_some(self.next_poll);
        let others = flows
            .into_iter()
            .chain(self.next_step())
            .chain(self.weight_pace.due())
            .chain(self.reach.next())
            .chain(self.save_again);
        drains.chain(retry).chain(others).min()
    }
}

/// When drains end by themselves, by both clocks; a known deadline keeps its time on the monotonic clock.
fn deadlines(desired: &Desired, known: &Deadlines) -> Deadlines {
    let mut deadlines = Deadlines::new();
    for (id, _, backend) in verdicts::backends(desired) {
        let Some(wall) = backend.drain_until else { continue };
        let CheckId(service, name) = id;
        let id = (service, name);
        let deadline = known.get(&id).copied().filter(|known| known.wall == wall);
        let deadline = deadline.unwrap_or_else(|| Deadline {
            at: now() + wall.duration_since(SystemTime::now()).unwrap_or_default(),
            wall,
        });
        deadlines.insert(id, deadline);
    }
    deadlines
}
