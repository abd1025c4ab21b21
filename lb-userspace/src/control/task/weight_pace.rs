//! When weights by agents are applied.

use std::time::{Duration, Instant};

/// Minimum time between two applications of agents' weights: with thousands of agents that change weights every other
/// second, rings are built once a second, not for each update.
pub(in crate::control) const WEIGHTS_EVERY: Duration = Duration::from_secs(1);

/// Applies changes at once if they are urgent, else at most once in [`WEIGHTS_EVERY`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct WeightPace {
    /// When changes that wait are applied.
    due: Option<Instant>,
    /// When changes were applied last.
    applied: Option<Instant>,
}

impl WeightPace {
    /// Takes a change: it is due at once, or after the interval.
    pub(super) fn note(&mut self, urgent: bool, now: Instant) {
        let later = self.applied.map(|applied| applied + WEIGHTS_EVERY);
        let later = later.filter(|at| *at > now);
        if urgent || later.is_none() {
            (self.due, self.applied) = (None, Some(now));
        } else {
            self.due = later;
        }
    }

    /// Whether nothing waits for a later time.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// When changes that wait are applied.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes note that the target with all changes was computed.
    pub(super) fn applied(&mut self, now: Instant) {
        if self.due.take().is_some() {
            self.applied = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_wait_for_the_interval_unless_they_are_urgent() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = WeightPace::default();
        pace.note(false, at(0));
        assert!(pace.is_due(at(0)) && pace.due().is_none());
        pace.note(false, at(100));
        assert!(!pace.is_due(at(100)));
        assert_eq!(pace.due(), Some(at(1_000)));
        pace.applied(at(1_000));
        assert!(pace.due().is_none());
        pace.note(false, at(1_500));
        assert_eq!(pace.due(), Some(at(2_000)), "counted from the last application");
        pace.note(true, at(1_600));
        assert!(pace.is_due(at(1_600)) && pace.due().is_none());
    }
}
