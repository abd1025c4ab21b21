//! The gate: a program that passes all packets until another program stands behind it.
//!
//! Exchanging the program of a link takes a grace period for each link, and a driver may take tens of milliseconds to run a program
//! for the first time. So a cold start attaches the gate at once, and puts the first program behind it when that is loaded, on all
//! interfaces in one step. The whole program, which comes later, takes the gate's place.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use super::{loading, sys};
use crate::map_shape::MapShape;

/// A gate, and the map of the program behind it. The kernel empties that map when only programs refer to it: this and its pin
/// prevent that.
pub(super) struct Gate {
    pub(super) program: OwnedFd,
    pub(super) map: OwnedFd,
}

impl Gate {
    /// Makes one that passes all packets.
    pub(super) fn new() -> io::Result<Self> {
        let map = loading::create_map("GATE", &MapShape::of_programs(1), None, None)?;
        let program = loading::load_gate(map.as_fd())?;
        Ok(Self { program, map })
    }

    /// Another handle of it.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            program: self.program.try_clone()?,
            map: self.map.try_clone()?,
        })
    }

    /// Has all packets enter a program from now on.
    pub(super) fn open(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        sys::update(self.map.as_fd(), &0_u32, &[program.as_raw_fd()])
    }
}
