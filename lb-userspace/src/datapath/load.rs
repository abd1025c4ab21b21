//! Loading the object: maps from their pins, the program once for each interface.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, Xdp, links::FdLink, xdp::XdpLink},
};
use lb_common::{limits::MAX_INTERFACES, map_names};

use super::{DatapathError, error, object};

/// The program and its read-only global in the object.
const PROGRAM: &str = "lb";
const SLOT_GLOBAL: &str = "INTERFACE_SLOT";

/// Lines of the verifier's log that an error shows: the last ones say what it objects to.
const VERIFIER_LINES: usize = 8;

/// The values of the global, one for each slot, with addresses that outlive the loader.
static SLOTS: [u32; MAX_INTERFACES as usize] = {
    let mut slots = [0; MAX_INTERFACES as usize];
    let mut slot = 0;
    while slot < MAX_INTERFACES {
        slots[slot as usize] = slot;
        slot += 1;
    }
    slots
};

/// Loads programs for the interfaces of one daemon. Kept for all of them, since making one reads the kernel's type
/// information.
pub(super) struct Loader {
    loader: EbpfLoader<'static>,
    object: &'static [u8],
}

/// A program in the kernel, loaded for one interface slot.
pub(super) struct Program(Ebpf);

impl Loader {
    /// A loader whose maps stand below `pins`; maps that are missing there are created by the first load.
    pub(super) fn new(object: &'static [u8], pins: &Path) -> Self {
        let mut loader = EbpfLoader::new();
        // The program reads no kernel structures, so nothing is relocated, and the copy just read can go.
        loader.btf(None);
        for name in map_names::PINNED {
            loader.map_pin_path(name, pins.join(name));
        }
        Self { loader, object }
    }

    /// Loads the program for an interface slot, with or without packets of several buffers.
    pub(super) fn load(&mut self, slot: u32, frags: bool) -> Result<Program, DatapathError> {
        let value = SLOTS
            .get(slot as usize)
            .ok_or_else(|| DatapathError::BadObject(format!("interface slot {slot} is out of range")))?;
        let mut ebpf = self
            .loader
            .override_global(SLOT_GLOBAL, value, true)
            .load(&object::variant(self.object, frags))
            .map_err(|e| DatapathError::Load {
                reason: error::chain(&e),
            })?;
        xdp(&mut ebpf)?.load().map_err(|e| DatapathError::Load {
            reason: load_error(&e),
        })?;
        Ok(Program(ebpf))
    }
}

impl Program {
    /// Calls `f` with the program's descriptor.
    pub(super) fn with_fd<T>(&mut self, f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let program = xdp(&mut self.0).map_err(io::Error::other)?;
        f(program.fd().map_err(io::Error::other)?.as_fd())
    }

    /// Puts the program in the place of the one that a pinned link holds, in one step: each packet sees one or the
    /// other.
    pub(super) fn take_over(&mut self, pin: &Path) -> Result<(), String> {
        let words = |e: &dyn std::error::Error| error::chain(e);
        let link = aya::programs::links::PinnedLink::from_pin(pin).map_err(|e| words(&e))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(|e| words(&e))?;
        let program = xdp(&mut self.0).map_err(|e| words(&e))?;
        program.attach_to_link(link).map(drop).map_err(|e| words(&e))
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| DatapathError::BadObject(format!("it has no XDP program \"{PROGRAM}\"")))
}

/// What the kernel said, without the thousands of lines that a verifier's log may have.
fn load_error(e: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = e
    else {
        return error::chain(e);
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n  ");
    if last.is_empty() {
        io_error.to_string()
    } else {
        format!("{io_error}; the verifier's last words:\n  {last}")
    }
}
