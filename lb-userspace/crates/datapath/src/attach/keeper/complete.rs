//! Another program takes the place of the present one, on all interfaces: the whole one of the first one, at the end of a cold start,
//! and that of a monitor of the usual one, and back.

use std::time::Instant;

use super::super::super::faults::DatapathPart;
use crate::{
    attach::keeper::Keeper,
    error::{DatapathError, chain},
    monitor::maps::MonitorMaps,
};

/// How the log reports that a cold start is over.
const WHOLE_RUNS: &str = "the whole program runs, in the place of the first one";

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

    /// Has all interfaces run the program of a monitor, or the usual one again.
    ///
    /// # Errors
    /// One of the interfaces cannot: all of them have the usual program again, as far as possible.
    pub(super) fn monitor(&mut self, monitor: Option<MonitorMaps>) -> Result<(), DatapathError> {
        self.monitor = monitor;
        let exchanged = self.try_complete();
        if exchanged.is_err() && self.monitor.take().is_some() {
            // The first error matters more than one of going back, which is tried again with the next change.
            let _ = self.try_complete();
        }
        exchanged
    }

    /// Puts the usual program back if the monitor has ended.
    pub(super) fn end_monitor(&mut self) {
        if !self.has_ended_monitor() {
            return;
        }
        if let Err(error) = self.monitor(None) {
            let error = chain(&error);
            tracing::warn!(error, "cannot put the usual program back after a monitor");
        }
    }

    /// Whether the program of a monitor runs that has ended.
    pub(super) fn has_ended_monitor(&self) -> bool {
        self.monitor.as_ref().is_some_and(MonitorMaps::is_alone)
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
