//! The control task's loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task, time,
};
use tokio_util::sync::CancellationToken;

use super::{
    Change, ControlError, ControlHandle, ControlView, Inherited, Outcome, REQUEST_DEPTH, Request,
    ability::{ProgramTarget, RunChecks},
    error::chain,
    lingering::{self, FLOW_POLL, Lingering},
    verdicts,
};
use crate::{
    datapath::ProgramError,
    events::{EventKind, EventLog, NewEvent},
    health::{Health, HealthEvent},
    metrics::{ApplyMetrics, Observation, Observer},
    plan::Target,
    state::{
        backend::Admin,
        change::BackendChange,
        desired::{Desired, Revision},
        diff,
        effective::{self, HealthView},
        names::{BackendName, ServiceName},
        service::ServiceKey,
        store::Store,
    },
};

/// Time after which a state that could not be programmed is tried again; doubles up to [`RETRY_MAX`].
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest time between two tries.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);
/// Events that one change makes at most, beside the one that names its revision.
const EVENTS_PER_CHANGE: usize = 100;

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
    observer: Arc<Observer>,
    events: Arc<EventLog>,
    metrics: ApplyMetrics,
    requests: mpsc::Receiver<Request>,
    publisher: watch::Sender<Arc<ControlView>>,

    desired: Arc<Desired>,
    health: HealthView,
    lingering: Vec<Lingering>,
    deadlines: BTreeMap<(ServiceName, BackendName), Deadline>,
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
        let health = verdicts::carried_over(&desired, &parts.inherited.health);
        let wanted = Arc::new(target(&desired, &health, &parts.inherited.lingering, None));
        let first = ControlView {
            desired: Arc::clone(&desired),
            wanted: Arc::clone(&wanted),
            programmed: None,
            failure: None,
            lingering: parts.inherited.lingering.clone(),
            drain_deadlines: BTreeMap::new(),
            last_apply_ok: true,
        };
        let (publisher, view) = watch::channel(Arc::new(first));
        let mut task = Self {
            writer: parts.writer,
            store: parts.store,
            checks: parts.checks,
            verdicts: parts.verdicts,
            observer: parts.observer,
            events: parts.events,
            metrics: parts.metrics,
            requests,
            publisher,
            desired,
            health,
            lingering: parts.inherited.lingering,
            deadlines: BTreeMap::new(),
            wanted: Arc::clone(&wanted),
            programmed: None,
            failure: None,
            retry: None,
            last_apply_ok: true,
        };
        task.program(wanted).await?;
        task.checks.run(verdicts::specs(&task.desired, &task.health));
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
            request = self.requests.recv() => request.map_or(ControlEvent::Stop, ControlEvent::Request),
            () = until(deadline) => ControlEvent::Timer,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let drains = self.deadlines.values().map(|deadline| deadline.at);
        let retry = self.retry.map(|retry| retry.at);
        let flows = (!self.lingering.is_empty()).then(|| now() + FLOW_POLL);
        drains.chain(retry).chain(flows).min()
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
        let diff = diff::diff(&self.desired, &next);
        let moved = diff::moved_shares(&self.desired, &next, &self.health);
        let outcome = Outcome {
            revision: if dry_run { present } else { next.revision },
            changed: next.revision != present,
            diff: diff.to_string().lines().map(str::to_owned).collect(),
            moved: moved
                .into_iter()
                .filter(|(name, share)| *share > 0.0 && self.takes_flows(name))
                .collect(),
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
        }
        self.set_deadline(change);
        self.publish();
        Ok(outcome)
    }

    /// Whether any backend of a service takes new flows: where none does, there are no flows that could move.
    fn takes_flows(&self, name: &ServiceName) -> bool {
        let service = self
            .desired
            .services
            .get(name)
            .and_then(|service| self.wanted.services.get(&service.key));
        service.is_some_and(|service| service.backends.values().any(|backend| backend.weight > 0))
    }

    /// Saves and programs `next`; on error everything is as before.
    async fn put_in_force(&mut self, change: &Change, next: Desired) -> Result<(), ControlError> {
        let next = Arc::new(next);
        self.save(Arc::clone(&next)).await?;
        let health = verdicts::after(&self.desired, &next, &self.health);
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
        let wanted = Arc::new(target(&next, &health, &lingering, self.programmed.as_deref()));
        if let Err(program) = self.program(wanted).await {
            return Err(match self.save(Arc::clone(&self.desired)).await {
                Ok(()) => ControlError::Program(program),
                Err(ControlError::Save(save)) => ControlError::NotTakenBack { program, save },
                Err(error) => error,
            });
        }
        self.desired = next;
        self.health = health;
        self.lingering = lingering;
        let desired = &self.desired;
        self.deadlines.retain(|(service, backend), _| {
            desired
                .backend(service, backend)
                .is_ok_and(|backend| backend.admin == Admin::Draining)
        });
        self.checks.run(verdicts::specs(&self.desired, &self.health));
        Ok(())
    }

    async fn save(&self, desired: Arc<Desired>) -> Result<(), ControlError> {
        let store = Arc::clone(&self.store);
        let saved = task::spawn_blocking(move || store.save(&desired)).await;
        Ok(saved.map_err(|error| ControlError::Internal(error.to_string()))??)
    }

    /// A drain that was asked for with a time ends then; one asked for without has no end.
    fn set_deadline(&mut self, change: &Change) {
        if let Change::SetBackend(service, name, change, time) = change
            && change.admin == Some(Admin::Draining)
        {
            let id = (service.clone(), name.clone());
            match time {
                Some(time) => {
                    let wall = SystemTime::now() + *time;
                    self.deadlines.insert(
                        id,
                        Deadline {
                            at: now() + *time,
                            wall,
                        },
                    );
                }
                None => {
                    self.deadlines.remove(&id);
                }
            }
        }
    }

    /// Takes a verdict, and all others that wait, then programs once.
    async fn judge(&mut self, event: HealthEvent) {
        self.note(event);
        while let Ok(event) = self.verdicts.try_recv() {
            self.note(event);
        }
        self.converge().await;
        self.publish();
    }

    fn note(&mut self, event: HealthEvent) {
        let HealthEvent {
            id,
            health,
            detail,
            at: _,
        } = event;
        // A verdict about a backend that has been removed meanwhile may still arrive.
        if !verdicts::wants(&self.desired, &id) {
            return;
        }
        // The engine repeats what it thinks is not known here yet.
        if self.health.get(&id).copied().unwrap_or_default() == health {
            return;
        }
        let message = match health {
            Health::Up | Health::Unchecked => health.to_string(),
            Health::Down => format!("down: {detail}"),
        };
        self.events.push(
            NewEvent {
                kind: EventKind::Health,
                service: Some(id.0.to_string()),
                backend: Some(id.1.to_string()),
                revision: self.desired.revision.0,
                message,
            },
            SystemTime::now(),
        );
        self.health.insert(id, health);
    }

    /// Programs what follows from desired state, verdicts and removed backends now, and tries again later if that
    /// fails: nobody waits for the answer.
    async fn converge(&mut self) {
        let wanted = Arc::new(target(
            &self.desired,
            &self.health,
            &self.lingering,
            self.programmed.as_deref(),
        ));
        if self.programmed.as_ref() == Some(&wanted) {
            self.wanted = wanted;
            self.failure = None;
            self.retry = None;
            return;
        }
        self.wanted = Arc::clone(&wanted);
        let failed_before = self.failure.is_some();
        match self.program(wanted).await {
            Ok(()) if failed_before => {
                self.event(
                    EventKind::ProgramRecovered,
                    None,
                    "programmed as desired again".into(),
                );
            }
            Ok(()) => {}
            Err(error) => {
                if !failed_before {
                    tracing::error!(
                        error = chain(&error),
                        "cannot program the data plane, will try again"
                    );
                    self.event(EventKind::ProgramFailed, None, chain(&error));
                }
                self.failure = Some(chain(&error));
                let wait = self.retry.map_or(RETRY_FIRST, |retry| retry.then);
                self.retry = Some(Retry {
                    at: now() + wait,
                    then: (2 * wait).min(RETRY_MAX),
                });
            }
        }
    }

    /// Programs `wanted`. On success it is what is wanted and programmed.
    async fn program(&mut self, wanted: Arc<Target>) -> Result<(), ProgramError> {
        if self
            .programmed
            .as_ref()
            .is_some_and(|programmed| loses_counters(programmed, &wanted))
        {
            self.observe().await;
        }
        let report = self.writer.program((*wanted).clone()).await?;
        self.metrics.programmed(&report);
        tracing::debug!(steps = report.steps, elapsed = ?report.elapsed, "programmed");
        self.programmed = Some(Arc::clone(&wanted));
        self.wanted = wanted;
        self.failure = None;
        self.retry = None;
        Ok(())
    }

    /// Reads all counters, so that the ledgers know them before they are gone.
    async fn observe(&self) -> Option<Observation> {
        let observer = Arc::clone(&self.observer);
        let view = Arc::clone(&self.publisher.borrow());
        match task::spawn_blocking(move || observer.observe(&view)).await {
            Ok(Ok(seen)) => Some(seen),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "cannot read counters");
                None
            }
            Err(_) => None,
        }
    }

    async fn timer(&mut self) {
        self.end_drains().await;
        self.release().await;
        if self.retry.is_some_and(|retry| retry.at <= now()) {
            self.converge().await;
            self.publish();
        }
    }

    /// Disables backends whose drain has reached its deadline.
    async fn end_drains(&mut self) {
        let over = |deadline: &Deadline| deadline.at <= now();
        let ended: Vec<_> = self
            .deadlines
            .iter()
            .filter(|(_, at)| over(at))
            .map(|(id, _)| id.clone())
            .collect();
        for (service, name) in ended {
            let disable = BackendChange {
                admin: Some(Admin::Disabled),
                ..BackendChange::default()
            };
            let change = Change::SetBackend(service.clone(), name.clone(), disable, None);
            if let Err(error) = self.change(&change, None, false).await {
                tracing::error!(%service, backend = %name, error = chain(&error), "cannot end a drain, will try again");
                let at = now() + RETRY_FIRST;
                self.deadlines
                    .entry((service, name))
                    .and_modify(|deadline| deadline.at = at);
            }
        }
    }

    /// Lets removed backends go that have no flows left.
    async fn release(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let Some(seen) = self.observe().await else { return };
        let mut released = Vec::new();
        self.lingering.retain(|lingering| {
            let flows = seen.at(&lingering.key, lingering.address).active_flows;
            let finished = lingering.finished(flows, seen.flows_counted_at, now());
            if finished {
                released.push((lingering.service.clone(), lingering.name.clone(), flows));
            }
            !finished
        });
        if released.is_empty() {
            return;
        }
        self.converge().await;
        for (service, name, flows) in released {
            let message = match flows {
                0 => "removed for good, its flows have finished".to_owned(),
                n => format!("removed for good, {n} flows move"),
            };
            self.event(EventKind::Released, Some((service, Some(name))), message);
        }
        self.publish();
    }

    /// Lets a backend go that was removed before and still finishes its flows; false if `change` asks for nothing of
    /// the kind.
    async fn release_at_once(&mut self, change: &Change) -> bool {
        let Some((service, name)) = change.at_once() else {
            return false;
        };
        let lingers = self
            .lingering
            .iter()
            .any(|lingering| is_named(lingering, Some((service, name))));
        if !lingers || self.desired.backend(service, name).is_ok() {
            return false;
        }
        self.lingering
            .retain(|lingering| !is_named(lingering, Some((service, name))));
        self.converge().await;
        let subject = Some((service.clone(), Some(name.clone())));
        self.event(
            EventKind::Released,
            subject,
            "removed for good, the flows it had move".into(),
        );
        self.publish();
        true
    }

    fn report(&self, diff: &diff::Diff) {
        let revision = self.desired.revision.0;
        tracing::info!(revision, changes = diff.items.len(), "applied");
        self.event(EventKind::Applied, None, format!("revision {revision} in force"));
        for item in diff.items.iter().take(EVENTS_PER_CHANGE) {
            let (kind, subject) = subject(&item.what);
            self.event(kind, subject, sentence(item));
        }
        if let Some(more) = diff
            .items
            .len()
            .checked_sub(EVENTS_PER_CHANGE)
            .filter(|more| *more > 0)
        {
            self.event(EventKind::Applied, None, format!("and {more} more changes"));
        }
    }

    fn event(&self, kind: EventKind, subject: Option<(ServiceName, Option<BackendName>)>, message: String) {
        let (service, backend) = subject.map_or((None, None), |(service, backend)| (Some(service), backend));
        let event = NewEvent {
            kind,
            service: service.map(|name| name.to_string()),
            backend: backend.map(|name| name.to_string()),
            revision: self.desired.revision.0,
            message,
        };
        self.events.push(event, SystemTime::now());
    }

    fn publish(&self) {
        self.metrics.revision(self.desired.revision);
        let drain_deadlines = self
            .deadlines
            .iter()
            .map(|(id, deadline)| (id.clone(), deadline.wall))
            .collect();
        self.publisher.send_replace(Arc::new(ControlView {
            desired: Arc::clone(&self.desired),
            wanted: Arc::clone(&self.wanted),
            programmed: self.programmed.clone(),
            failure: self.failure.clone(),
            lingering: self.lingering.clone(),
            drain_deadlines,
            last_apply_ok: self.last_apply_ok,
        }));
    }
}

/// What should be programmed.
fn target(
    desired: &Desired,
    health: &HealthView,
    lingering: &[Lingering],
    programmed: Option<&Target>,
) -> Target {
    let lingering = lingering
        .iter()
        .map(|gone| ((gone.key, gone.address), gone.mode))
        .collect();
    effective::target(
        desired,
        &verdicts::cautious(desired, health, programmed),
        &lingering,
    )
}

/// Whether a removed backend is the one of these names.
fn is_named(lingering: &Lingering, names: Option<(&ServiceName, &BackendName)>) -> bool {
    names == Some((&lingering.service, &lingering.name))
}

/// Whether `new` gives up ids that `old` has, and with them their counters.
fn loses_counters(old: &Target, new: &Target) -> bool {
    let ids = |target: &Target| -> BTreeSet<(ServiceKey, Option<SocketAddr>)> {
        let backends = target.services.iter().flat_map(|(key, service)| {
            let backends = service.backends.keys().map(|address| (*key, Some(*address)));
            backends.chain([(*key, None)])
        });
        backends.collect()
    };
    !ids(old).is_subset(&ids(new))
}

/// An item of a diff without its subject: `added: weight 10`, `changed: weight 10 -> 30`, `removed`.
fn sentence(item: &diff::Item) -> String {
    let what = match item.change {
        diff::Change::Added => "added",
        diff::Change::Removed => "removed",
        diff::Change::Changed => "changed",
    };
    let fields: Vec<String> = item.fields.iter().map(ToString::to_string).collect();
    if fields.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {}", fields.join(", "))
    }
}

/// Whom a line of a diff is about: `service web`, `backend web/web-1` or `settings`.
fn subject(what: &str) -> (EventKind, Option<(ServiceName, Option<BackendName>)>) {
    if let Some(name) = what.strip_prefix("service ") {
        return (EventKind::Service, name.parse().ok().map(|name| (name, None)));
    }
    let backend = what
        .strip_prefix("backend ")
        .and_then(|name| name.split_once('/'));
    let names = backend.and_then(|(service, name)| Some((service.parse().ok()?, Some(name.parse().ok()?))));
    let kind = if names.is_some() {
        EventKind::Backend
    } else {
        EventKind::Applied
    };
    (kind, names)
}

/// The time on the clock that tests can stop.
fn now() -> Instant {
    time::Instant::now().into_std()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
