//! Descriptors of the pinned maps, to restore removed pins.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use lb_common::map_names;

use super::{pin::Pins, sys};
use crate::error::DatapathError;

/// The pinned maps, held open for as long as the daemon runs.
pub(super) struct HeldMaps(Vec<(&'static str, OwnedFd)>);

/// A pin and the object that it must name.
pub(super) type Pin<'a> = (PathBuf, BorrowedFd<'a>);

impl HeldMaps {
    /// Opens all maps that are pinned below `pins`.
    ///
    /// # Errors
    /// [`DatapathError::Map`] for the first missing one; [`map_names::LATE`] may be missing.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let mut held = Self(Vec::new());
        held.open_missing(pins)?;
        Ok(held)
    }

    /// Opens those that were missing before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_missing(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        for name in map_names::PINNED {
            if self.0.iter().any(|(held, _)| *held == name) {
                continue;
            }
            let error = |reason: String| DatapathError::Map { map: name, reason };
            let map = sys::pinned(&pins.current().join(name)).map_err(|e| error(e.to_string()))?;
            match map {
                Some(map) => self.0.push((name, map)),
                None if map_names::LATE.contains(&name) => {}
                None => return Err(error("is not pinned".to_owned())),
            }
        }
        Ok(())
    }

    /// The pins that must be there.
    pub(super) fn pins(&self, pins: &Pins) -> Vec<Pin<'_>> {
        let directory = pins.current();
        let maps = self.0.iter();
        maps.map(|(name, map)| (directory.join(name), map.as_fd()))
            .collect()
    }
}
