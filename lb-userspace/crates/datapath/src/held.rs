//! Descriptors of what is pinned, to restore removed pins.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use lb_common::{map_names, stage::ENTRY};

use super::{kept, pin::Pins, sys};
use crate::error::DatapathError;

/// The pinned maps and programs, held open for as long as the daemon runs.
#[derive(Default)]
pub(super) struct HeldPins {
    maps: Vec<(&'static str, OwnedFd)>,
    /// Programs that packets enter, and the maps by which they go on. The kernel empties a map of programs that has neither a pin nor a
    /// process: with the daemon, forwarding would end.
    programs: Vec<(PathBuf, OwnedFd)>,
}

/// A pin and the object that it must name.
pub(super) type Pin<'a> = (PathBuf, BorrowedFd<'a>);

impl HeldPins {
    /// Opens all that is pinned below `pins`.
    ///
    /// # Errors
    /// [`DatapathError::Map`] for the first missing map; [`map_names::LATE`] may be missing. [`DatapathError::Io`] if the programs cannot
    /// be read.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let mut held = Self::default();
        held.renew(pins)?;
        Ok(held)
    }

    /// Opens maps that were missing before, and the programs that are pinned now in the place of those before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn renew(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        for name in map_names::PINNED {
            if self.maps.iter().any(|(held, _)| *held == name) {
                continue;
            }
            let error = |reason: String| DatapathError::Map { map: name, reason };
            let map = sys::pinned(&pins.current().join(name)).map_err(|e| error(e.to_string()))?;
            match map {
                Some(map) => self.maps.push((name, map)),
                None if map_names::LATE.contains(&name) => {}
                None => return Err(error("is not pinned".to_owned())),
            }
        }
        self.programs = programs(pins).map_err(|source| DatapathError::Io {
            what: format!("cannot read the programs pinned in {}", pins.programs().display()),
            source,
        })?;
        Ok(())
    }

    /// The pins that must be there.
    pub(super) fn pins(&self, pins: &Pins) -> Vec<Pin<'_>> {
        let directory = pins.current();
        let maps = self
            .maps
            .iter()
            .map(|(name, map)| (directory.join(name), map.as_fd()));
        let programs = self.programs.iter().map(|(pin, fd)| (pin.clone(), fd.as_fd()));
        maps.chain(programs).collect()
    }
}

fn programs(pins: &Pins) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
    let mut programs = Vec::new();
    for other in kept::pins_of(ENTRY, &pins.programs())? {
        if let Some(fd) = sys::pinned(&other.pin)? {
            programs.push((other.pin, fd));
        }
    }
    Ok(programs)
}
