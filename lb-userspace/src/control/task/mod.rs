//! The control task's loop.

mod agent_updates;
mod change;
mod converge;
mod drains;
mod first;
mod proposal;
mod recorder;
pub(super) mod report;
mod reported;
mod retry;
mod timers;
mod ways;
mod weight_pace;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{drains::Drains, recorder::Recorder, reported::Reported, retry::Retry, weight_pace::WeightPace};
use super::{
    ports::{AskAgents, ProgramTarget, RunChecks},
    reach::Reach,
    removed::{FLOW_POLL, RemovedBackend},
    verdicts,
};
use crate::{
    author::Author,
    clock::{now, until},
    config::Config,
    control::{
        handle::{ControlHandle, PING_DEPTH, REQUEST_DEPTH, Request},
        inherited::Inherited,
        metrics::ApplyMetrics,
        observe::Observer,
        view::{ControlView, RefusedFile},
    },
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
        store::Store,
        stored::Stored,
    },
};

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

/// What takes effect at once: no change in progress delays it.
enum Decision {
    /// A verdict changed.
    Health(HealthEvent),
    /// Agents reported.
    AgentUpdates,
    /// Backends are reached otherwise.
    Ways,
    /// This machine has other addresses.
    Host,
    /// The target changes by the passing of time.
    Due,
    /// Someone asks whether the task still works.
    Ping(oneshot::Sender<()>),
}

/// What reaches the task from others, besides requests.
struct Inbox {
    verdicts: mpsc::Receiver<HealthEvent>,
    agent_updates: watch::Receiver<AgentView>,
    ways: watch::Receiver<Arc<NextHops>>,
    host: watch::Receiver<Arc<HostAddresses>>,
    pings: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Inbox {
    /// The next decision, at `due` at the latest. Cancel-safe.
    async fn next(&mut self, due: Option<Instant>) -> Decision {
        tokio::select! {
            biased;
            Some(event) = self.verdicts.recv() => Decision::Health(event),
            Ok(()) = self.agent_updates.changed() => Decision::AgentUpdates,
            Ok(()) = self.ways.changed() => Decision::Ways,
            Ok(()) = self.host.changed() => Decision::Host,
            Some(answer) = self.pings.recv() => Decision::Ping(answer),
            () = until(due) => Decision::Due,
        }
    }
}

/// Owns desired state, verdicts and removed backends. Not cancel-safe inside a change: it ends between two events.
pub struct ControlTask<P> {
    writer: P,
    store: Arc<dyn Store + Send + Sync>,
    recorder: Recorder,
    checks: Box<dyn RunChecks>,
    ask: Box<dyn AskAgents>,
    requests: mpsc::Receiver<Request>,
    inbox: Inbox,
    observer: Arc<Observer>,
    events: Arc<EventLog>,
    metrics: ApplyMetrics,
    publisher: watch::Sender<Arc<ControlView>>,
    desired: Arc<Desired>,
    applied: Option<Arc<Config>>,
    /// Who made the revision in force.
    by: Option<Author>,
    refused: Option<RefusedFile>,
    health: HealthView,
    /// The last agent update of each backend.
    agents: AgentView,
    /// Backends that cannot be reached.
    reach: Reach,
    /// When weights by agents are applied.
    weight_pace: WeightPace,
    reported: Reported,
    lingering: Vec<RemovedBackend>,
    /// When the flows of removed backends are looked at again.
    next_poll: Instant,
    drains: Drains,
    pace: Pace,
    /// The state that an earlier daemon had programmed for desired backends.
    standings: Standings,
    /// Backends that got no packets before this start and have no health state yet.
    unverified: BTreeSet<CheckId>,
    wanted: Arc<Target>,
    programmed: Option<Arc<Target>>,
    failure: Option<String>,
    retry: Retry,
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
        let (asks, pings) = mpsc::channel(PING_DEPTH);
        let Stored { desired, applied, by } = parts.stored;
        let mut drains = Drains::default();
        drains.follow(&desired, now(), SystemTime::now());
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
            recorder: Recorder::new(Arc::clone(&parts.store)),
            store: parts.store,
            checks: parts.checks,
            ask: parts.agents,
            requests,
            inbox: Inbox {
                verdicts: parts.verdicts,
                agent_updates: parts.agent_updates,
                ways: parts.ways,
                host: parts.host,
                pings,
            },
            observer: parts.observer,
            events: parts.events,
            metrics: parts.metrics,
            publisher,
            desired,
            applied,
            by,
            last_apply_ok: parts.refused.is_none(),
            refused: parts.refused,
            health,
            reported: Reported::weights_of(&agents),
            agents,
            reach: Reach::default(),
            weight_pace: WeightPace::default(),
            lingering,
            next_poll: now() + FLOW_POLL,
            drains,
            pace,
            standings,
            unverified,
            wanted: Arc::clone(&nothing),
            programmed: None,
            failure: None,
            retry: Retry::default(),
            save_again: None,
        };
        task.metrics.last_apply(task.last_apply_ok);
        task.note_unsaved();
        // The next hops known by then arrive as the first change.
        task.inbox.ways.mark_changed();
        task.first_program().await?;
        task.ask.ask(agents::specs(&task.desired, &task.agents));
        task.publish();
        let handle = ControlHandle {
            requests: sender,
            pings: asks,
            view,
            by: None,
        };
        Ok((task, handle))
    }

    /// Runs until `cancel`, or until the last handle is dropped.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let (due, deadline) = (self.due(), self.next_deadline());
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                decision = self.inbox.next(due) => self.decide(decision).await,
                request = self.requests.recv() => match request {
                    Some(request) => self.take(request).await,
                    None => return,
                },
                () = until(deadline) => self.timer().await,
            }
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Change {
                change,
                expected,
                dry_run,
                by,
                reply,
            } => {
                let outcome = self.change(&change, expected, dry_run, by.map(|by| *by)).await;
                // The caller may be gone; the change stays.
                let _ = reply.send(outcome);
            }
            Request::Refused { why, by } => self.refuse(why, by.as_deref()),
        }
    }

    async fn decide(&mut self, decision: Decision) {
        match decision {
            Decision::Health(event) => self.judge(event).await,
            Decision::AgentUpdates => self.hear().await,
            Decision::Ways => self.follow_ways().await,
            Decision::Host => {
                self.converge().await;
                self.publish();
            }
            Decision::Due => self.step().await,
            Decision::Ping(answer) => {
                // The caller may be gone.
                let _ = answer.send(());
            }
        }
    }

    /// Waits for a part of a change that takes long, and goes on deciding: neither a disk nor a computation delays a verdict. The
    /// desired state stays as it is meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                decision = self.inbox.next(due) => self.decide(decision).await,
                done = &mut work => return done,
            }
        }
    }

    /// When the target changes by itself.
    fn due(&self) -> Option<Instant> {
        let times = [
            self.retry.due(),
            self.next_step(),
            self.weight_pace.due(),
            self.reach.next(),
        ];
        times.into_iter().flatten().min()
    }

    /// When something else is to be done.
    fn next_deadline(&self) -> Option<Instant> {
        let times = [
            self.drains.next(),
            (!self.lingering.is_empty()).then_some(self.next_poll),
            self.save_again,
        ];
        times.into_iter().flatten().min()
    }
}
