//! The end of a cold start: the whole program takes the place of the first one.

use std::time::Instant;

use super::super::super::faults::DatapathPart;
use crate::{attach::keeper::Keeper, error::DatapathError};

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
