//! From what is wanted to what is programmed.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::task;

use super::{ControlTask, RETRY_FIRST, RETRY_MAX, Retry};
use crate::{
    clock::now,
    control::{ability::ProgramTarget, error::chain, lingering::Lingering, verdicts},
    datapath::ProgramError,
    events::{EventKind, NewEvent},
    health::{Health, HealthEvent, OK, agent::AgentView},
    metrics::Observation,
    plan::Target,
    state::{
        agents, backups,
        desired::Desired,
        down_grace::DownGrace,
        effective::{self, Blocked, HealthView},
        names::ServiceName,
        removal,
        ring_sizes::RingSizes,
        slow_start::SlowStart,
    },
};

impl<P: ProgramTarget> ControlTask<P> {
    /// Takes a verdict, and all others that wait, then programs once.
    pub(super) async fn judge(&mut self, event: HealthEvent) {
        self.note(event);
        while let Ok(event) = self.verdicts.try_recv() {
            self.note(event);
        }
        self.converge().await;
        self.publish();
    }

    pub(super) fn note(&mut self, event: HealthEvent) {
        if self.note_removed(&event) {
            return;
        }
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
            Health::Up | Health::Unchecked if detail == OK => health.to_string(),
            Health::Up | Health::Unchecked => format!("{health}: {detail}"),
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
    pub(super) async fn converge(&mut self) {
        if self.agents_due.take().is_some() {
            self.agents_done = Some(now());
        }
        let mut pace = self.pace.clone();
        let blocked = self.reach.blocked(now());
        let told = Told {
            health: &self.health,
            agents: &self.agents,
            blocked: &blocked,
        };
        let wanted = target(
            &self.desired,
            told,
            &self.lingering,
            self.programmed.as_deref(),
            &mut pace,
        );
        if self.programmed.as_ref() == Some(&wanted) {
            self.pace = pace;
            self.wanted = wanted;
            self.failure = None;
            self.retry = None;
            return;
        }
        self.wanted = Arc::clone(&wanted);
        let failed_before = self.failure.is_some();
        match self.program(wanted).await {
            Ok(()) => {
                self.pace = pace;
                if failed_before {
                    let message = "programmed as desired again".into();
                    self.event(EventKind::ProgramRecovered, None, message);
                }
            }
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
    pub(super) async fn program(&mut self, wanted: Arc<Target>) -> Result<(), ProgramError> {
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

    /// Checks what is to be checked, and nothing else.
    pub(super) fn run_checks(&self) {
        let specs = verdicts::specs(&self.desired, &self.health, &self.lingering);
        self.checks.run(specs);
    }

    /// Whether any backend of a service takes new flows: where none does, there are none that could go elsewhere.
    pub(super) fn takes_flows(&self, name: &ServiceName) -> bool {
        let service = self
            .desired
            .services
            .get(name)
            .and_then(|service| self.wanted.services.get(&service.key));
        service.is_some_and(|service| service.backends.values().any(|backend| backend.weight > 0))
    }

    /// Reads all counters, so that the ledgers know them before they are gone.
    pub(super) async fn observe(&self) -> Option<Observation> {
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
}

/// What others say about backends.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    /// The verdicts of checks.
    pub(super) health: &'a HealthView,
    /// What agents said.
    pub(super) agents: &'a AgentView,
    /// Where nothing can be sent to.
    pub(super) blocked: &'a Blocked,
}

/// What a target takes from those before it, and what changes it as time passes.
#[derive(Clone, Default)]
pub(super) struct Pace {
    /// Weights that rise.
    pub(super) slow_start: SlowStart,
    /// Flows of backends that just went down.
    pub(super) down: DownGrace,
    /// Rings that keep their size.
    pub(super) ring_sizes: RingSizes,
}

impl Pace {
    /// When the target changes next.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.slow_start.next(), self.down.next()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What should be programmed.
pub(super) fn target(
    desired: &Desired,
    told: Told<'_>,
    lingering: &[Lingering],
    programmed: Option<&Target>,
    pace: &mut Pace,
) -> Arc<Target> {
    let desired = &*agents::in_force(desired, told.agents);
    let health = &*agents::judged(told.health, told.agents);
    let desired = &*backups::in_force(desired, health, told.blocked);
    let lingering = lingering
        .iter()
        .map(|gone| ((gone.key, gone.address), gone.mode))
        .collect();
    let wanted = effective::target_without(
        desired,
        &verdicts::cautious(desired, &removal::limited(desired, health), programmed),
        &lingering,
        told.blocked,
    );
    let now = now();
    let wanted = pace.ring_sizes.keep(wanted, desired);
    let wanted = pace.down.keep_flows(wanted, desired, health, programmed, now);
    let mut wanted = pace.slow_start.hold_back(wanted, desired, health, now);
    if let Some(programmed) = programmed {
        wanted.share_with(programmed);
    }
    Arc::new(wanted)
}

/// Whether `new` gives up ids that `old` has, and with them their counters.
pub(super) fn loses_counters(old: &Target, new: &Target) -> bool {
    old.services.iter().any(|(key, old)| match new.services.get(key) {
        Some(new) if new.is_same(old) => false,
        Some(new) => old
            .backends
            .keys()
            .any(|address| !new.backends.contains_key(address)),
        None => true,
    })
}
