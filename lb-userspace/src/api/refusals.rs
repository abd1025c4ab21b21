//! Which refusals become events: not each of many, so that one client cannot push out other events.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Refusals so far, for their events.
#[derive(Debug)]
pub struct Refusals {
    /// Of requests that the client may not make: any client can cause them.
    pub(super) requests: Refused,
    /// Of changes and reports for what they ask for, by clients that may make them: a script can repeat them for days.
    pub(super) changes: Refused,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            requests: Refused::new(Duration::from_secs(10), 1),
            changes: Refused::new(Duration::from_secs(600), 50),
        }
    }
}

/// Refusals of one kind.
#[derive(Debug)]
pub(super) struct Refused {
    /// Time in which equal refusals make one event.
    quiet: Duration,
    /// Events in that time.
    most: usize,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    reported: BTreeSet<String>,
    others: u64,
}

impl Refused {
    fn new(quiet: Duration, most: usize) -> Self {
        Self {
            quiet,
            most,
            recent: Mutex::default(),
        }
    }

    /// Counts a refusal: how many others were not reported before, if this one is to be reported.
    pub(super) fn count(&self, what: &str) -> Option<u64> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.is_none_or(|since| since.elapsed() >= self.quiet) {
            recent.reported.clear();
            recent.since = Some(Instant::now());
        }
        if recent.reported.len() == self.most || !recent.reported.insert(what.to_owned()) {
            recent.others += 1;
            return None;
        }
        Some(mem::take(&mut recent.others))
    }
}

/// `, and 3 others before`
pub(super) fn others_text(others: u64) -> String {
    match others {
        0 => String::new(),
        others => format!(", and {others} others before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn equal_refusals_are_reported_once_and_others_at_once() {
        let refusals = Refusals::default().changes;
        assert_eq!(
            ["a", "b", "a", "a"].map(|what| refusals.count(what)),
            [Some(0), Some(0), None, None]
        );
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(["a", "a"].map(|what| refusals.count(what)), [Some(2), None]);
        let many = (0..100).filter(|number| refusals.count(&number.to_string()).is_some());
        assert_eq!(many.count(), 49);
    }
}
