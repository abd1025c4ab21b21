//! A check, shared by all backends with its target and settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use crate::{
    breaker::{Breaker, BreakerState},
    health_state::Health,
    machine::Machine,
    memory::{Known, Memory},
    metrics::ServiceMetrics,
    phase::Moment,
    probe_route::CheckPath,
    settings::CheckSettings,
    status::{CheckSpec, Judgement},
    target::TargetId,
};

/// Number of a check, never used twice.
pub(crate) type CheckNo = u64;

/// One target with one set of settings, shared by all backends with these.
#[derive(Debug)]
pub(super) struct Check<I: TargetId> {
    pub(super) target: SocketAddr,
    pub(super) path: Option<CheckPath>,
    pub(super) settings: CheckSettings,
    pub(super) machine: Machine,
    /// When it became suspect by passive signals.
    pub(super) suspect: Option<Instant>,
    pub(super) breaker: Breaker,
    /// When its latest check began.
    pub(super) started: Option<Instant>,
    /// The memory reported last.
    pub(super) reported: Known,
    /// Its backends, and the index of each one's status on the board.
    pub(super) ids: BTreeMap<I, usize>,
    pub(super) services: BTreeMap<I::Service, ServiceMetrics>,
}

impl<I: TargetId> Check<I> {
    /// Whether it fits `spec`, which has the same target. It does not matter which key the target's port comes from,
    /// except for checks through the VIP, whose port is the service's.
    pub(super) fn is_of(&self, spec: &CheckSpec<I>) -> bool {
        if self.path != spec.path {
            return false;
        }
        let (ours, theirs) = (&self.settings, &spec.settings);
        ours == theirs
            || self.path.is_none()
                && ours.port != theirs.port
                && *ours
                    == CheckSettings {
                        port: ours.port,
                        ..theirs.clone()
                    }
    }

    /// The memory to store.
    pub(super) fn known(&self) -> Known {
        let mut known = Known {
            suspect_since: self.suspect,
            breaker: self.breaker.state(),
            breaker_until: self.breaker.deadline(),
            ..Known::default()
        };
        self.machine.note(&mut known);
        known
    }

    /// Continues from an earlier process's memory.
    pub(super) fn recall(&mut self, memory: &Memory, now: Moment) {
        let known = Known::recalled(memory, now);
        self.machine = Machine::recalled(*self.machine.policy(), &known);
        self.suspect = known.suspect_since;
        self.breaker = Breaker::recalled(known.breaker, known.breaker_until);
        self.reported = known;
    }

    /// The health state: by the checks, unless the breaker is open.
    pub(super) fn verdict(&self) -> Health {
        match self.breaker.state() {
            BreakerState::Open => Health::Down,
            BreakerState::Closed | BreakerState::HalfOpen => self.machine.health(),
        }
    }

    /// Inputs to the health state other than results.
    pub(super) fn judgement(&self) -> Judgement {
        Judgement {
            damped: self.machine.is_damped(),
            suspect: self.suspect.is_some(),
            breaker: self.breaker.state(),
        }
    }
}

/// Schedules the next step of a check's breaker. Outdated deadlines are ignored.
pub(super) fn note_breaker<I: TargetId>(
    breakers: &mut BTreeSet<(Instant, CheckNo)>,
    no: CheckNo,
    check: &Check<I>,
) {
    breakers.extend(check.breaker.deadline().map(|at| (at, no)));
}
