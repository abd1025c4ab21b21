//! From the wanted to the programmed state.

use std::{sync::Arc, time::SystemTime};

use tokio::task;

use super::ControlTask;
use crate::{
    chain::chain,
    clock::now,
    control::{Observation, ports::ProgramTarget, removed::RemovedBackend, verdicts},
    datapath::ProgramError,
    events::{EventKind, NewEvent},
    health::{Health, HealthEvent, OK},
    plan::{
        Target,
        target::{self, Before, Inputs, Pace},
    },
    state::{desired::Desired, names::ServiceName, store::Record},
};

impl<P: ProgramTarget> ControlTask<P> {
    /// Takes a verdict, and all others that wait, then programs once.
    pub(super) async fn judge(&mut self, event: HealthEvent) {
        if self.on_health_event(event).await {
            self.converge().await;
            self.publish();
        }
    }

    /// Takes a health event and all waiting ones, and stores them before they take effect. Returns whether any changed
    /// a health state.
    pub(super) async fn on_health_event(&mut self, event: HealthEvent) -> bool {
        let mut records = Vec::new();
        let mut news = self.note(event, &mut records);
        while let Ok(event) = self.inbox.verdicts.try_recv() {
            news |= self.note(event, &mut records);
        }
        self.recorder.remember(records).await;
        news
    }

    /// Records a health event; returns whether it changed a health state.
    fn note(&mut self, event: HealthEvent, records: &mut Vec<Record>) -> bool {
        if self.note_removed(&event) {
            return true;
        }
        let HealthEvent {
            id,
            health,
            detail,
            at: _,
            memory,
        } = event;
        // A verdict about a backend that has been removed meanwhile may still arrive.
        let Some(target) = self
            .desired
            .backend(&id.0, &id.1)
            .ok()
            .map(|backend| backend.address)
        else {
            return false;
        };
        if !verdicts::wants(&self.desired, &id) {
            return false;
        }
        let news = self.pace.down.note_breaker(&id, memory.is_down_by_breaker());
        records.push(Record::check(&id, target, memory));
        // The engine may repeat a health state that is known here.
        if self.health.get(&id).copied().unwrap_or_default() == health {
            return news;
        }
        self.unverified.remove(&id);
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
                by: None,
            },
            SystemTime::now(),
        );
        self.health.insert(id, health);
        true
    }

    /// Programs the target that follows from desired state, health states and removed backends, and retries later on
    /// failure: no caller waits for the result.
    pub(super) async fn converge(&mut self) {
        self.weight_pace.applied(now());
        let mut pace = self.pace.clone();
        let blocked = self.reach.blocked(now());
        let host = Arc::clone(&self.inbox.host.borrow());
        let inputs = Inputs {
            health: &self.health,
            agents: &self.agents,
            blocked: &blocked,
            is_own: &|prefix| host.has_any_of(prefix),
            own: host.addresses(),
        };
        let wanted = target(&self.desired, inputs, &self.lingering, self.before(), &mut pace);
        if self.programmed.as_ref() == Some(&wanted) {
            self.pace = pace;
            self.wanted = wanted;
            self.failure = None;
            self.retry.succeeded();
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
                    tracing::error!(error = chain(&error), "cannot program the data plane, retrying");
                    self.event(EventKind::ProgramFailed, None, chain(&error));
                }
                self.failure = Some(chain(&error));
                self.retry.failed(now());
            }
        }
    }

    /// The state in force before a change.
    pub(super) fn before(&self) -> Before<'_> {
        Before {
            programmed: self.programmed.as_deref(),
            standings: &self.standings,
            unverified: &self.unverified,
        }
    }

    /// Programs `wanted`. On success it is the wanted and the programmed state.
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
        self.retry.succeeded();
        Ok(())
    }

    /// Sets the checks to those of the desired state and of removed backends.
    pub(super) fn run_checks(&self) {
        let specs = verdicts::specs(&self.desired, &self.health, &self.lingering);
        self.checks.run(specs);
    }

    /// Whether any backend of a service takes new flows; if none does, new flows cannot go elsewhere.
    pub(super) fn takes_flows(&self, name: &ServiceName) -> bool {
        let service = self
            .desired
            .services
            .get(name)
            .and_then(|service| self.wanted.services.get(&service.key));
        service.is_some_and(|service| service.backends.values().any(|backend| backend.weight > 0))
    }

    /// Reads all counters into the ledgers before their entries are deleted.
    pub(super) fn observe(&self) -> impl Future<Output = Option<Observation>> + Send + use<P> {
        let observer = Arc::clone(&self.observer);
        let view = Arc::clone(&self.publisher.borrow());
        async move {
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

/// The target of the present state.
pub(super) fn target(
    desired: &Desired,
    inputs: Inputs<'_>,
    lingering: &[RemovedBackend],
    before: Before<'_>,
    pace: &mut Pace,
) -> Arc<Target> {
    let lingering = lingering
        .iter()
        .map(|gone| ((gone.key, gone.address), gone.mode))
        .collect();
    target::compute(desired, inputs, &lingering, before, pace, now())
}
