//! Flap damping: a backend that falls too often has to prove itself for longer. Pure: time is handed in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{memory::Known, settings::Damping};

/// Maximum of `flap_limit`, which bounds the memory for each target.
pub const MAX_FLAP_LIMIT: u32 = 100;

/// The falls of one target.
///
/// Where the latest `limit` falls lie within `window`, the target is damped: it is not up again before its checks have
/// succeeded for all of `hold`. Damping never takes a target out and never keeps one in.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    falls: VecDeque<Instant>,
    damped: bool,
    /// When the first of the latest successes in a row began.
    since: Option<Instant>,
}

impl Flaps {
    /// Restores the state of an earlier process.
    pub(super) fn recalled(known: &Known) -> Self {
        Self {
            falls: known.falls.clone(),
            damped: known.damped,
            since: known.proving_since,
        }
    }

    /// Stores its state in `known`. Successes in a row matter only while the target is held down.
    pub(super) fn note(&self, known: &mut Known) {
        known.falls.clone_from(&self.falls);
        known.damped = self.damped;
        known.proving_since = self.since.filter(|_| self.damped);
    }

    /// The target went down by a check that began at `at`.
    pub(super) fn fell(&mut self, at: Instant, damping: &Damping) {
        self.since = None;
        let limit = usize::try_from(damping.limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return;
        }
        self.falls.push_back(at);
        while self.falls.len() > limit {
            self.falls.pop_front();
        }
        let oldest = self.falls.front().filter(|_| self.falls.len() == limit);
        self.damped = oldest.is_some_and(|oldest| at.saturating_duration_since(*oldest) <= damping.window);
    }

    /// A check failed while the target is down.
    pub(super) fn failed(&mut self) {
        self.since = None;
    }

    /// A check that began at `at` succeeded while the target is down. Returns for how much longer it has to.
    pub(super) fn succeeded(&mut self, at: Instant, damping: &Damping) -> Duration {
        let since = *self.since.get_or_insert(at);
        if self.damped {
            damping.hold.saturating_sub(at.saturating_duration_since(since))
        } else {
            Duration::ZERO
        }
    }

    /// The target is up again. Its falls stay remembered.
    pub(super) fn rose(&mut self) {
        (self.since, self.damped) = (None, false);
    }

    /// Whether it is held down until it has succeeded for long enough.
    pub(super) fn is_damped(&self) -> bool {
        self.damped
    }
}
