//! Restores pins that are removed while the daemon runs: without them the next daemon would find neither flows nor links.

use std::{mem, os::fd::AsFd as _};

use super::super::super::{error::chain, faults::DatapathPart, held::Pin, sys};
use crate::{
    attach::keeper::{Keeper, judge::Judgement},
    error::DatapathError,
};

impl Keeper {
    /// Whether a pin is missing.
    pub(super) fn lacks_pins(&self, judgements: &[Judgement]) -> bool {
        !self.pins.is_in_place() || self.pins_of(judgements).iter().any(|(path, _)| !path.exists())
    }

    /// The pins that must be there, by which a next daemon takes over.
    fn pins_of(&self, judgements: &[Judgement]) -> Vec<Pin<'_>> {
        let mut pins = self.held.pins(&self.pins);
        for (entry, judgement) in self.entries.iter().zip(judgements) {
            if let Some(link) = entry.link.as_ref().filter(|_| judgement.keeps_link()) {
                pins.push((self.pins.link(entry.interface.slot), link.as_fd()));
            }
        }
        pins
    }

    /// Makes removed pins again.
    pub(super) fn restore_pins(&mut self, judgements: &[Judgement]) {
        let directory = self.pins.current().display().to_string();
        let part = DatapathPart::Pins;
        match self.pin_missing(judgements) {
            Ok(0) if !mem::take(&mut self.lacks_pins) => {}
            Ok(0) => self.reporter.works(
                part,
                &format!("maps, programs and links are pinned in {directory}"),
            ),
            Ok(count) => {
                self.lacks_pins = false;
                let message = format!("{count} pins were removed from {directory} while the daemon runs");
                let hint = "find out what removed them: a restart meanwhile would have lost flows";
                self.reporter.failed(part, message, hint);
                let message = format!("{count} maps, programs and links are pinned again in {directory}");
                self.reporter.works(part, &message);
            }
            Err(error) => {
                self.lacks_pins = true;
                let message = format!(
                    "cannot pin maps, programs and links again in {directory}, where they were removed: {}",
                    chain(&error)
                );
                let hint = "do not restart the daemon before this is over: it would lose all flows";
                let hint = error
                    .hint()
                    .map_or_else(|| hint.to_owned(), |how| format!("{hint}; {how}"));
                self.reporter.failed(part, message, &hint);
            }
        }
    }

    /// Makes the pins that are missing; returns how many were.
    fn pin_missing(&mut self, judgements: &[Judgement]) -> Result<usize, DatapathError> {
        self.pins.make_again()?;
        let mut missing = 0;
        for (path, object) in self.pins_of(judgements) {
            if !path.exists() {
                sys::pin(object, &path).map_err(|source| DatapathError::Io {
                    what: format!("cannot pin {}", path.display()),
                    source,
                })?;
                missing += 1;
            }
        }
        Ok(missing)
    }
}
