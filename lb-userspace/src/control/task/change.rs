//! Changes of the desired state: validated, saved, programmed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task;

use super::{
    ControlTask,
    converge::target,
    proposal::{Present, Proposal},
    timers::is_named,
};
use crate::{
    author::Author,
    chain::chain,
    clock::now,
    config::diff::Diff,
    control::{
        Change, ControlError, Observation,
        error::ending,
        handle::{Moved, Outcome},
        ports::ProgramTarget,
        removed::{self, RemovedBackend, removed_record},
        verdicts,
    },
    events::EventKind,
    health::CheckId,
    plan::target::Inputs,
    state::{
        agents,
        backend::Backend,
        desired::{Desired, Revision},
        moves::Moves,
        names::ServiceName,
        store::Record,
        stored::Stored,
    },
};

/// Time after which a state that could not be saved is saved again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

impl<P: ProgramTarget> ControlTask<P> {
    /// Validates, saves, programs and publishes a change, `by` a command's author where there is one.
    pub(super) async fn change(
        &mut self,
        change: &Change,
        expected: Option<Revision>,
        dry_run: bool,
        by: Option<Author>,
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
                services: Vec::new(),
                moved: Vec::new(),
                replaced: Vec::new(),
                unconfirmed: None,
            });
        }
        let Proposal {
            mut next,
            diff,
            replaced,
            unconfirmed,
            moves,
        } = match self.propose(change, dry_run).await {
            Err(ControlError::NoServices { refused, .. }) => {
                let seen = self.seen().await.unwrap_or_default();
                let keys = self.desired.services.values().map(|service| service.key);
                let flows = keys.map(|key| seen.flows_of(&key)).sum();
                return Err(ControlError::NoServices { refused, flows });
            }
            other => other?,
        };
        let moved = self.counted(moves, &next.desired).await;
        let flows = moved.iter().map(|moved| moved.flows).sum();
        if let Some(removals) = unconfirmed.clone().filter(|_| !dry_run) {
            return Err(ControlError::Unconfirmed { removals, flows });
        }
        let lines = |diff: &Diff| diff.to_string().lines().map(str::to_owned).collect();
        let outcome = Outcome {
            revision: if dry_run { present } else { next.desired.revision },
            changed: next.desired.revision != present,
            diff: lines(&diff),
            services: diff.services().into_iter().collect(),
            moved,
            replaced: lines(&replaced),
            unconfirmed: unconfirmed.map(|removals| format!("{removals}{}", ending(flows))),
        };
        if dry_run {
            return Ok(outcome);
        }
        let result = if outcome.changed {
            next.by.clone_from(&by);
            self.put_in_force(change, next).await
        } else if next.applied != self.applied {
            let saved = self.save(next.clone()).await;
            saved.map(|()| self.applied = next.applied)
        } else {
            Ok(())
        };
        if let Err(error) = result {
            self.last_apply_ok = false;
            self.metrics.last_apply(false);
            self.event_by(EventKind::Refused, None, chain(&error), by.as_ref());
            self.publish();
            return Err(error);
        }
        if matches!(change, Change::File(..)) {
            self.refused = None;
            self.report_replaced(&replaced, by.as_ref());
        }
        if outcome.changed {
            self.last_apply_ok = true;
            self.report(&diff, by.as_ref());
        }
        // The change equals the state in force; a file that was refused in between is right again.
        self.metrics.last_apply(self.last_apply_ok);
        self.publish();
        Ok(outcome)
    }

    pub(super) fn stored(&self) -> Stored {
        Stored {
            desired: Arc::clone(&self.desired),
            applied: self.applied.clone(),
            by: self.by.clone(),
        }
    }

    /// What a change makes of the present state. Verdicts do not wait for it.
    async fn propose(&mut self, change: &Change, dry_run: bool) -> Result<Proposal, ControlError> {
        let present = Present {
            stored: self.stored(),
            host: Arc::clone(&self.inbox.host.borrow()),
            health: self.health.clone(),
            agents: self.agents.clone(),
            ring_sizes: self.pace.ring_sizes.clone(),
        };
        let change = change.clone();
        let proposal = task::spawn_blocking(move || Proposal::of(&change, &present, dry_run));
        let proposal = self.meanwhile(proposal).await;
        proposal.map_err(|error| ControlError::Internal(error.to_string()))?
    }

    /// Reads all counters. Verdicts do not wait for it.
    pub(super) async fn seen(&mut self) -> Option<Observation> {
        let seen = self.observe();
        self.meanwhile(seen).await
    }

    /// The effect on flows of a change to `next`, with the number of established flows; empty without an effect.
    async fn counted(&mut self, moves: BTreeMap<ServiceName, Moves>, next: &Desired) -> Vec<Moved> {
        let any_loser = moves
            .values()
            .any(|moves| !moves.losers.is_empty() || moves.left.is_some());
        let seen = if any_loser { self.seen().await } else { None };
        let counted = moves.into_iter().map(|(service, moves)| {
            let Moves { share, losers, left } = moves;
            let flows = seen.as_ref().map_or(0, |seen| {
                let of_losers = losers
                    .iter()
                    .map(|(key, address)| seen.at(key, *address).active_flows);
                of_losers.sum::<u64>() + left.as_ref().map_or(0, |key| seen.flows_of(key))
            });
            let loser = losers.first().map(|(key, _)| *key).or(left);
            let target = loser.and_then(|key| self.wanted.services.get(&key));
            Moved {
                share: if self.takes_flows(&service) { share } else { 0.0 },
                flows,
                removed: left.is_some() && !next.services.contains_key(&service),
                uncounted: target.is_some_and(|target| target.records() && !target.records_all()),
                service,
            }
        });
        counted
            .filter(|moved| moved.share > 0.0 || moved.flows > 0)
            .collect()
    }

    /// Saves and programs `next`; on error everything is as before. Verdicts that come while it is saved apply to the state in
    /// force, and to `next` after it.
    async fn put_in_force(&mut self, change: &Change, next: Stored) -> Result<(), ControlError> {
        // Stored first: the record of a backend that is still desired has no effect.
        let removals = self.removals(&self.lingering_after(change, &next.desired), change);
        self.store(removals).await;
        self.save(next.clone()).await?;
        let Stored {
            desired: next,
            applied,
            by,
        } = next;
        let writer = self.writer.clone();
        let backends = verdicts::backends(&next).map(|(.., backend)| backend.address.ip());
        let backends = backends.collect();
        self.meanwhile(async move { writer.reach(backends).await }).await;
        let health = verdicts::after(&self.desired, &next, &self.health);
        let updates = agents::after(&self.desired, &next, &self.agents);
        let lingering = self.lingering_after(change, &next);
        let mut pace = self.pace.clone();
        let blocked = self.reach.blocked(now());
        let host = Arc::clone(&self.inbox.host.borrow());
        let inputs = Inputs {
            health: &health,
            agents: &updates,
            blocked: &blocked,
            is_own: &|prefix| host.has_any_of(prefix),
            own: host.addresses(),
        };
        let wanted = target(&next, inputs, &lingering, self.before(), &mut pace);
        if let Err(program) = self.program(wanted).await {
            return Err(match self.save(self.stored()).await {
                Ok(()) => ControlError::Program(program),
                Err(ControlError::Save(save)) => ControlError::NotTakenBack { program, save },
                Err(error) => error,
            });
        }
        // A new backend got no packets yet: once another backend of its service is up, it takes flows only after its
        // own check.
        let is_there = |id: &CheckId, backend: &Backend| {
            let there = self.desired.backend(&id.0, &id.1);
            there.is_ok_and(|there| there.address == backend.address)
        };
        let new = verdicts::backends(&next)
            .filter(|(id, service, backend)| verdicts::finds_out(service) && !is_there(id, backend));
        self.unverified.extend(new.map(|(id, ..)| id));
        self.unverified.retain(|id| verdicts::wants(&next, id));
        (self.desired, self.applied, self.by) = (next, applied, by);
        self.health = health;
        self.agents = updates;
        self.reported.keep_weights_of(&self.agents);
        self.lingering = lingering;
        self.pace = pace;
        self.drains.follow(&self.desired, now(), SystemTime::now());
        self.run_checks();
        self.ask.ask(agents::specs(&self.desired, &self.agents));
        Ok(())
    }

    /// The removed backends after a change to `next`.
    fn lingering_after(&self, change: &Change, next: &Desired) -> Vec<RemovedBackend> {
        let mut lingering = self.lingering.clone();
        if let Some(programmed) = &self.programmed {
            lingering.extend(removed::removed(
                &self.desired,
                next,
                programmed,
                change.at_once(),
                now(),
            ));
        }
        lingering.retain(|lingering| !lingering.overtaken(next) && !is_named(lingering, change.at_once()));
        lingering
    }

    /// Records for the next daemon about backends that a change removes, or takes back.
    fn removals(&self, lingering: &[RemovedBackend], change: &Change) -> Vec<Record> {
        let (now, wall) = (now(), SystemTime::now());
        let new = lingering
            .iter()
            .filter(|lingering| !self.lingering.contains(lingering));
        let gone = change.at_once().and_then(|(service, name)| {
            let service = self.desired.service(service).ok()?;
            let backend = service.backends.iter().find(|backend| backend.name == *name)?;
            Some(removed_record(service.key, name, backend.address, wall))
        });
        new.map(|lingering| lingering.record(now, wall))
            .chain(gone)
            .collect()
    }

    /// Stores records. Verdicts do not wait for it.
    pub(super) async fn store(&mut self, records: Vec<Record>) {
        let recorder = self.recorder.clone();
        self.meanwhile(async move { recorder.store(records).await }).await;
    }

    /// Saves a state. Verdicts do not wait for it.
    pub(super) async fn save(&mut self, stored: Stored) -> Result<(), ControlError> {
        let store = Arc::clone(&self.store);
        let saved = task::spawn_blocking(move || store.save(&stored));
        let saved = self.meanwhile(saved).await;
        saved.map_err(|error| ControlError::Internal(error.to_string()))??;
        self.note_unsaved();
        Ok(())
    }

    /// Records whether the state in force is saved, and when to retry.
    pub(super) fn note_unsaved(&mut self) {
        let unsaved = self.store.unsaved();
        self.metrics.saved(unsaved.is_none());
        if unsaved.is_none() && self.save_again.is_some() {
            tracing::info!("the state is saved again");
        }
        self.save_again = unsaved.map(|_| now() + SAVE_AGAIN);
    }
}
