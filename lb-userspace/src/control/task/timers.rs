//! Timed work: drains end, weights rise, removed backends are dropped, failures are retried.

use std::time::{Instant, SystemTime};

use super::{ControlTask, retry::RETRY_FIRST};
use crate::{
    chain::chain,
    clock::now,
    config::change::Request,
    control::{
        Change,
        ports::ProgramTarget,
        removed::{FLOW_POLL, RemovedBackend, removed_record},
        verdicts,
    },
    events::EventKind,
    health::{Health, HealthEvent},
    state::{
        backend::Admin,
        names::{BackendName, ServiceName},
        store::Record,
        words::Word as _,
    },
};

impl<P: ProgramTarget> ControlTask<P> {
    /// Does what is due besides [`Self::step`].
    pub(super) async fn timer(&mut self) {
        self.end_drains().await;
        if self.next_poll <= now() {
            self.next_poll = now() + FLOW_POLL;
            self.release().await;
        }
        if self.save_again.is_some_and(|at| at <= now()) {
            // The store remembers why it failed.
            let _ = self.save(self.stored()).await;
            self.note_unsaved();
        }
    }

    /// Changes what is programmed as far as that is due.
    pub(super) async fn step(&mut self) {
        let over = |at: Option<Instant>| at.is_some_and(|at| at <= now());
        if over(self.reach.next()) {
            self.follow_ways().await;
        }
        if over(self.retry.due()) || over(self.next_step()) || over(self.weight_pace.due()) {
            self.converge().await;
            self.publish();
        }
    }

    /// When the passing of time changes the target. While programming fails, that waits for the next try.
    pub(super) fn next_step(&self) -> Option<Instant> {
        self.pace.next().filter(|_| self.retry.due().is_none())
    }

    /// Disables backends whose drain has reached its deadline.
    pub(super) async fn end_drains(&mut self) {
        for (service, name) in self.drains.ended(now()) {
            let disable = Request::one("admin", Admin::Disabled.word());
            let change = Change::SetBackend(service.clone(), name.clone(), disable);
            if let Err(error) = self.change(&change, None, false, None).await {
                tracing::error!(%service, backend = %name, error = chain(&error), "cannot end a drain, retrying");
                self.drains.postpone(&(service, name), now() + RETRY_FIRST);
            }
        }
    }

    /// Drops removed backends that have no flows left, or that are dead: then their flows move like those of any dead
    /// backend.
    pub(super) async fn release(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let Some(seen) = self.seen().await else { return };
        let (mut released, mut records) = (Vec::new(), Vec::new());
        self.lingering.retain(|lingering| {
            let flows = seen.at(&lingering.key, lingering.address).active_flows;
            let finished = lingering.finished(flows, seen.flows_counted_at, now());
            let dead = lingering.is_dead(&self.desired, now());
            if finished || dead {
                released.push((lingering.service.clone(), lingering.name.clone(), flows, dead));
                records.push(gone(lingering));
            }
            !finished && !dead
        });
        if released.is_empty() {
            return;
        }
        self.recorder.remember(records).await;
        self.run_checks();
        self.converge().await;
        for (service, name, flows, dead) in released {
            let why = if dead { ", since it is down" } else { "" };
            let message = match flows {
                0 => format!("removed for good, its flows have finished{why}"),
                n => format!("removed for good, {n} flows move{why}"),
            };
            self.event(EventKind::Released, Some((service, Some(name))), message);
        }
        self.publish();
    }

    /// Records a health event about a removed backend; returns whether it is about one.
    pub(super) fn note_removed(&mut self, event: &HealthEvent) -> bool {
        if verdicts::wants(&self.desired, &event.id) {
            return false;
        }
        let is_meant = |gone: &&mut RemovedBackend| gone.check_id().as_ref() == Some(&event.id);
        let Some(gone) = self.lingering.iter_mut().find(is_meant) else {
            return false;
        };
        gone.down_since = match event.health {
            Health::Up | Health::Unchecked => None,
            Health::Down => gone.down_since.or_else(|| Some(now())),
        };
        true
    }

    /// Drops a removed backend whose flows still finish; false unless `change` asks for that.
    pub(super) async fn release_at_once(&mut self, change: &Change) -> bool {
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
        let named = |lingering: &RemovedBackend| is_named(lingering, Some((service, name)));
        let records = self
            .lingering
            .iter()
            .filter(|lingering| named(lingering))
            .map(gone);
        let records = records.collect();
        self.store(records).await;
        self.lingering.retain(|lingering| !named(lingering));
        self.run_checks();
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
}

/// The record for the next daemon about a removed backend that is dropped.
fn gone(lingering: &RemovedBackend) -> Record {
    removed_record(
        lingering.key,
        &lingering.name,
        lingering.address,
        SystemTime::now(),
    )
}

/// Whether a removed backend is the one of these names.
pub(super) fn is_named(lingering: &RemovedBackend, names: Option<(&ServiceName, &BackendName)>) -> bool {
    names == Some((&lingering.service, &lingering.name))
}
