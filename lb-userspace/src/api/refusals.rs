//! How many requests were refused since the last report.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time in which refusals make at most one event, so that a reader cannot push out other events.
const QUIET: Duration = Duration::from_secs(10);

/// Refusals so far, for their events.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Reported>);

#[derive(Debug, Default)]
struct Reported {
    last: Option<Instant>,
    since: u64,
}

impl Refusals {
    /// Counts a refusal: how many others came since the last report, if this one is to be reported.
    pub(super) fn count(&self) -> Option<u64> {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.last.is_some_and(|last| last.elapsed() < QUIET) {
            reported.since += 1;
            return None;
        }
        reported.last = Some(Instant::now());
        Some(std::mem::take(&mut reported.since))
    }
}
