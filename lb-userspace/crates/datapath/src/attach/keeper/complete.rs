//! Another program takes the place of the present one, on all interfaces: the whole one of the first one, at the end of a cold start,
//! and that of a monitor of the usual one, and back, which is retried.

use std::time::Instant;

use super::super::super::faults::DatapathPart;
use crate::{
    attach::keeper::{Keeper, RETRY, RETRY_MAX, Retry},
    error::{DatapathError, chain},
    monitor::maps::MonitorMaps,
};

/// How the log reports that a cold start is over.
const WHOLE_RUNS: &str = "the whole program runs, in the place of the first one";
/// How the log reports that a monitor is over, where that took more than one attempt.
const USUAL_RUNS: &str = "the usual program runs again, in the place of a monitor's";
/// The same, where another monitor has begun meanwhile.
const NEXT_RUNS: &str = "the program of another monitor runs, in the place of one that has ended";

impl Keeper {
    /// Has all interfaces run the whole program, in the place of the first one.
    ///
    /// # Errors
    /// The whole program cannot be loaded, or one of the interfaces cannot run it: the first one runs on, which is reported.
    pub(super) fn complete(&mut self) -> Result<(), DatapathError> {
        let completed = self.try_complete();
        match &completed {
            Ok(()) => {
                tracing::info!("{WHOLE_RUNS}");
                self.reporter.works(DatapathPart::Program, WHOLE_RUNS);
            }
            Err(error) => {
                let message = format!(
                    "the whole program cannot be loaded, so changes that need more than runs are refused: {error}"
                );
                let hint = error.hint();
                let hint = hint
                    .as_deref()
                    .unwrap_or("retried automatically; see the daemon's log");
                self.reporter.failed(DatapathPart::Program, message, hint);
            }
        }
        completed
    }

    /// Has all interfaces run the program of a monitor.
    ///
    /// # Errors
    /// One of the interfaces cannot: all of them have the usual program again, or get it as soon as possible.
    pub(super) fn monitor(&mut self, monitor: MonitorMaps) -> Result<(), DatapathError> {
        self.monitor = Some(monitor);
        let begun = self.try_complete();
        match &begun {
            // It replaces a program that an earlier monitor has left, too.
            Ok(()) if self.usual.take().is_some() => {
                self.reporter.works(DatapathPart::Program, NEXT_RUNS);
            }
            Ok(()) => {}
            Err(_) => self.put_usual_back(),
        }
        begun
    }

    /// Whether the usual program is to be put back: the monitor has ended, or the latest attempt was a while ago.
    pub(super) fn must_put_usual_back(&self, now: Instant) -> bool {
        match &self.monitor {
            Some(monitor) => monitor.is_alone(),
            None => self.usual.as_ref().is_some_and(|retry| now >= retry.at),
        }
    }

    /// Whether the program of a monitor runs, or may run.
    pub(super) const fn is_monitored(&self) -> bool {
        self.monitor.is_some() || self.usual.is_some()
    }

    /// Puts the usual program in the place of a monitor's, which must not go on. A failure is reported, and is to be retried.
    pub(super) fn put_usual_back(&mut self) {
        self.monitor = None;
        let failed = self.usual.take();
        match self.try_complete() {
            Ok(()) if failed.is_none() => {}
            Ok(()) => self.reporter.works(DatapathPart::Program, USUAL_RUNS),
            Err(error) => {
                let wait = failed.map_or(RETRY, |failed| failed.wait * 2).min(RETRY_MAX);
                self.usual = Some(Retry {
                    at: Instant::now() + wait,
                    wait,
                });
                let message = format!(
                    "a monitor has ended, and its program still runs: {}",
                    chain(&error)
                );
                let hint = error.hint();
                let hint = hint.as_deref().unwrap_or(
                    "retried automatically; packets are forwarded as before, with more work for each",
                );
                self.reporter.failed(DatapathPart::Program, message, hint);
            }
        }
    }

    fn try_complete(&mut self) -> Result<(), DatapathError> {
        let io = |source| DatapathError::Io {
            what: "cannot inspect the interfaces".to_owned(),
            source,
        };
        let judgements = self.look().map_err(io)?;
        // As in `act`.
        self.restore_pins(&judgements);
        if self.lacks_pins {
            return Err(DatapathError::PinDir {
                path: self.pins.current(),
                reason: "maps that were removed from it cannot be pinned again".to_owned(),
            });
        }
        let due = vec![false; judgements.len()];
        let renewed = self.attach(&judgements, &due, Instant::now())?;
        let entries = self.entries.iter().map(|entry| entry.interface.clone());
        self.shown.send_replace(entries.collect());
        renewed
    }
}
