//! When something that failed is tried again.

use std::time::{Duration, Instant};

/// Time after which a state that could not be programmed is tried again; doubles up to [`RETRY_MAX`].
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest time between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Waits after each failure, twice as long as after the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retry {
    due: Option<Instant>,
    /// How long the next failure makes it wait.
    wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            due: None,
            wait: RETRY_FIRST,
        }
    }
}

impl Retry {
    /// Takes note of a failure.
    pub(super) fn failed(&mut self, now: Instant) {
        self.due = Some(now + self.wait);
        self.wait = (2 * self.wait).min(RETRY_MAX);
    }

    /// Takes note of a success: the next failure waits the shortest time again.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When it is tried again; `None`: the last try succeeded.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_until_a_try_succeeds() {
        let now = Instant::now();
        let mut retry = Retry::default();
        assert_eq!(retry.due(), None);
        let mut waits = Vec::new();
        for _ in 0..7 {
            retry.failed(now);
            waits.extend(retry.due().map(|due| (due - now).as_secs()));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        retry.succeeded();
        assert_eq!(retry.due(), None);
        retry.failed(now);
        assert_eq!(retry.due(), Some(now + RETRY_FIRST));
    }
}
