//! The control task's loop, and changes of the desired state.

mod converge;
mod hearing;
mod report;
mod timers;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task,
};
use tokio_util::sync::CancellationToken;

use self::{
    converge::{Pace, Told, target},
    timers::is_named,
};
use super::{
    Change, ControlError, ControlHandle, ControlView, Inherited, Moved, Outcome, REQUEST_DEPTH, Request,
    ability::{AskAgents, ProgramTarget, RunChecks},
    error::chain,
    lingering::{self, FLOW_POLL, Lingering},
    reach::{Reach, refuse_own_backends},
    verdicts,
};
use crate::{
    clock::{now, until},
    datapath::{HostAddresses, NextHops, ProgramError},
    events::{EventKind, EventLog},
    health::{CheckId, HealthEvent, agent::AgentView},
    metrics::{ApplyMetrics, Observer},
    plan::Target,
    state::{
        agents,
        desired::{Desired, Revision},
        diff::{self, Moves},
        effective::{Blocked, HealthView},
        names::{BackendName, ServiceName},
        store::Store,
    },
};

/// Time after which a state that could not be programmed is tried again; doubles up to [`RETRY_MAX`].
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest time between two tries.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the task is made of.
pub struct Parts<P> {
    /// Programs the data plane.
    pub writer: P,
    /// Keeps the desired state.
    pub store: Arc<dyn Store + Send + Sync>,
    /// Checks backends.
    pub checks: Box<dyn RunChecks>,
    /// What checks say.
    pub verdicts: mpsc::Receiver<HealthEvent>,
    /// Asks agents.
    pub agents: Box<dyn AskAgents>,
    /// What agents say.
    pub said: watch::Receiver<AgentView>,
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
    /// The desired state to begin with.
    pub desired: Desired,
    /// What an earlier daemon left in the maps.
    pub inherited: Inherited,
}

/// Everything that can happen to the task.
enum ControlEvent {
    /// Someone asks for a change.
    Request(Request),
    /// A verdict changed.
    Health(HealthEvent),
    /// Agents said something.
    Said,
    /// Backends are reached otherwise.
    Ways,
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
    said: watch::Receiver<AgentView>,
    ways: watch::Receiver<Arc<NextHops>>,
    host: watch::Receiver<Arc<HostAddresses>>,
    observer: Arc<Observer>,
    events: Arc<EventLog>,
    metrics: ApplyMetrics,
    requests: mpsc::Receiver<Request>,
    publisher: watch::Sender<Arc<ControlView>>,
    desired: Arc<Desired>,
    health: HealthView,
    /// What agents said about backends.
    agents: AgentView,
    /// Backends that cannot be reached.
    reach: Reach,
    /// When weights that agents have changed are put in force.
    agents_due: Option<Instant>,
    /// When that was done last.
    agents_done: Option<Instant>,
    /// Weights by agents as last told, in percent.
    told_percent: BTreeMap<CheckId, u16>,
    lingering: Vec<Lingering>,
    /// When the flows of removed backends are looked at again.
    next_poll: Instant,
    deadlines: Deadlines,
    pace: Pace,
    /// Backends that take flows although they are down, as last told.
    overruled: BTreeMap<ServiceName, Vec<BackendName>>,
    /// Backups that take new flows, as last told.
    backups: BTreeSet<(ServiceName, BackendName)>,
    /// When backends that begin slowly have their whole weight, as last told.
    whole_at: BTreeMap<(ServiceName, BackendName), SystemTime>,
    wanted: Arc<Target>,
    programmed: Option<Arc<Target>>,
    failure: Option<String>,
    retry: Option<Retry>,
    last_apply_ok: bool,
}

impl<P: ProgramTarget> ControlTask<P> {
    /// Programs the first state and begins its checks.
    ///
    /// # Errors
    /// When it cannot be programmed.
    pub async fn start(parts: Parts<P>) -> Result<(Self, ControlHandle), ProgramError> {
        let (sender, requests) = mpsc::channel(REQUEST_DEPTH);
        let desired = Arc::new(parts.desired);
        let deadlines = deadlines(&desired, &Deadlines::new());
        let health = verdicts::carried_over(&desired, &parts.inherited.health);
        let mut pace = Pace {
            slow_start: parts.inherited.slow_start,
            down: parts.inherited.down,
            ring_sizes: parts.inherited.ring_sizes,
        };
        let agents = parts.inherited.agents;
        let told = Told {
            health: &health,
            agents: &agents,
            blocked: &Blocked::new(),
        };
        let wanted = target(&desired, told, &parts.inherited.lingering, None, &mut pace);
        let first = ControlView {
            desired: Arc::clone(&desired),
            wanted: Arc::clone(&wanted),
            programmed: None,
            failure: None,
            lingering: parts.inherited.lingering.clone(),
            drain_deadlines: BTreeMap::new(),
            whole_at: BTreeMap::new(),
            last_apply_ok: true,
        };
        let (publisher, view) = watch::channel(Arc::new(first));
        let mut task = Self {
            writer: parts.writer,
            store: parts.store,
            checks: parts.checks,
            verdicts: parts.verdicts,
            ask: parts.agents,
            said: parts.said,
            ways: parts.ways,
            host: parts.host,
            observer: parts.observer,
            events: parts.events,
            metrics: parts.metrics,
            requests,
            publisher,
            desired,
            health,
            told_percent: agents
                .iter()
                .map(|(id, said)| (id.clone(), said.word.percent))
                .collect(),
            agents,
            reach: Reach::default(),
            agents_due: None,
            agents_done: None,
            lingering: parts.inherited.lingering,
            next_poll: now() + FLOW_POLL,
            deadlines,
            pace,
            overruled: BTreeMap::new(),
            backups: BTreeSet::new(),
            whole_at: BTreeMap::new(),
            wanted: Arc::clone(&wanted),
            programmed: None,
            failure: None,
            retry: None,
            last_apply_ok: true,
        };
        // What is known of ways by then comes as news.
        task.ways.mark_changed();
        task.program(wanted).await?;
        task.run_checks();
        task.ask.ask(agents::specs(&task.desired, &task.agents));
        task.publish();
        let handle = ControlHandle {
            requests: sender,
            view,
        };
        Ok((task, handle))
    }

    /// Runs until `cancel`, or until nobody can ask any more.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            match self.next(&cancel).await {
                ControlEvent::Request(request) => {
                    let Request {
                        change,
                        expected,
                        dry_run,
                        reply,
                    } = request;
                    let outcome = self.change(&change, expected, dry_run).await;
                    // Whoever asked may have gone; the change stands all the same.
                    let _ = reply.send(outcome);
                }
                ControlEvent::Health(event) => self.judge(event).await,
                ControlEvent::Said => self.hear().await,
                ControlEvent::Ways => self.follow_ways().await,
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
            Ok(()) = self.said.changed() => ControlEvent::Said,
            Ok(()) = self.ways.changed() => ControlEvent::Ways,
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
            .chain(self.agents_due)
            .chain(self.reach.next());
        drains.chain(retry).chain(others).min()
    }

    /// Validates, saves, programs and publishes a change.
    async fn change(
        &mut self,
        change: &Change,
        expected: Option<Revision>,
        dry_run: bool,
    ) -> Result<Outcome, ControlError> {
        let present = self.desired.revision;
        if let Some(expected) = expected.filter(|expected| *expected != present) {
            return Err(ControlError::Moved { expected, present });
        }
        if !dry_run && self.release_at_once(change).await {
            return Ok(Outcome {
                revision: present,
                changed: true,
                diff: Vec::new(),
                moved: Vec::new(),
            });
        }
        let next = change.apply(&self.desired)?;
        refuse_own_backends(&self.desired, &next, &self.host.borrow())?;
        let diff = diff::diff(&self.desired, &next);
        let judged = agents::judged(&self.health, &self.agents);
        let in_force = |desired| agents::in_force(desired, &self.agents);
        let moved = diff::moves(
            &in_force(&self.desired),
            &in_force(&next),
            &judged,
            change.at_once(),
            &self.pace.ring_sizes,
        );
        let moved = self.counted(moved).await;
        let outcome = Outcome {
            revision: if dry_run { present } else { next.revision },
            changed: next.revision != present,
            diff: diff.to_string().lines().map(str::to_owned).collect(),
            moved,
        };
        if dry_run {
            return Ok(outcome);
        }
        if outcome.changed {
            let result = self.put_in_force(change, next).await;
            self.last_apply_ok = result.is_ok();
            self.metrics.last_apply(result.is_ok());
            if let Err(error) = result {
                self.event(EventKind::Refused, None, chain(&error));
                self.publish();
                return Err(error);
            }
            self.report(&diff);
        } else {
            // What is asked for is what is there; a file that was refused in between is mended.
            self.metrics.last_apply(self.last_apply_ok);
        }
        self.publish();
        Ok(outcome)
    }

    /// What happens to flows, with those under way counted, where anything does.
    async fn counted(&self, moves: BTreeMap<ServiceName, Moves>) -> Vec<Moved> {
        let any_loser = moves.values().any(|moves| !moves.losers.is_empty());
        let seen = if any_loser { self.observe().await } else { None };
        let counted = moves.into_iter().map(|(service, Moves { share, losers })| {
            let flows = |(key, address)| {
                seen.as_ref()
                    .map_or(0, |seen| seen.at(&key, address).active_flows)
            };
            Moved {
                share: if self.takes_flows(&service) { share } else { 0.0 },
                flows: losers.into_iter().map(flows).sum(),
                service,
            }
        });
        counted
            .filter(|moved| moved.share > 0.0 || moved.flows > 0)
            .collect()
    }

    /// Saves and programs `next`; on error everything is as before.
    async fn put_in_force(&mut self, change: &Change, next: Desired) -> Result<(), ControlError> {
        let next = Arc::new(next);
        self.save(Arc::clone(&next)).await?;
        let health = verdicts::after(&self.desired, &next, &self.health);
        let said = agents::after(&self.desired, &next, &self.agents);
        let mut lingering = self.lingering.clone();
        if let Some(programmed) = &self.programmed {
            lingering.extend(lingering::removed(
                &self.desired,
                &next,
                programmed,
                change.at_once(),
                now(),
            ));
        }
        lingering.retain(|lingering| !lingering.overtaken(&next) && !is_named(lingering, change.at_once()));
        let mut pace = self.pace.clone();
        let blocked = self.reach.blocked(now());
        let told = Told {
            health: &health,
            agents: &said,
            blocked: &blocked,
        };
        let programmed = self.programmed.as_deref();
        let wanted = target(&next, told, &lingering, programmed, &mut pace);
        if let Err(program) = self.program(wanted).await {
            return Err(match self.save(Arc::clone(&self.desired)).await {
                Ok(()) => ControlError::Program(program),
                Err(ControlError::Save(save)) => ControlError::NotTakenBack { program, save },
                Err(error) => error,
            });
        }
        self.desired = next;
        self.health = health;
        self.agents = said;
        self.told_percent.retain(|id, _| self.agents.contains_key(id));
        self.lingering = lingering;
        self.pace = pace;
        self.deadlines = deadlines(&self.desired, &self.deadlines);
        self.run_checks();
        self.ask.ask(agents::specs(&self.desired, &self.agents));
        Ok(())
    }

    async fn save(&self, desired: Arc<Desired>) -> Result<(), ControlError> {
        let store = Arc::clone(&self.store);
        let saved = task::spawn_blocking(move || store.save(&desired)).await;
        Ok(saved.map_err(|error| ControlError::Internal(error.to_string()))??)
    }
}

/// When drains end by themselves, by both clocks; one that stands already keeps its place on the clock that only goes
/// forward.
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
