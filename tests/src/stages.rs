//! Loads the program with its stages without a daemon, for measurements that need the maps for themselves.

use std::{
    ffi::c_long,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{ProgramFd, Xdp},
};
use lb_common::{map_names, monitor, stage::Stage};

use crate::test_run::bpf;

/// Loads all programs of an object, and puts the stages where the others find them.
///
/// # Errors
/// When the kernel refuses one, or the object has no stages.
pub fn load(object: &mut Ebpf) -> Result<()> {
    for (_, program) in object.programs_mut() {
        let program: &mut Xdp = program.try_into()?;
        program.load()?;
    }
    let mut stages: Vec<(u32, ProgramFd)> = Vec::new();
    for stage in Stage::ALL {
        for (name, is_v6) in stage.programs().into_iter().zip([false, true]) {
            let program = object
                .program(name)
                .with_context(|| format!("no program {name}"))?;
            stages.push((stage.slot(is_v6), program.fd()?.try_clone()?));
        }
    }
    // The monitored program has one more.
    if let Some(program) = object.program(monitor::PROGRAM) {
        stages.push((monitor::SLOT, program.fd()?.try_clone()?));
    }
    let map = object.map_mut(map_names::STAGES).context("no map of stages")?;
    let mut map = ProgramArray::try_from(map)?;
    for (slot, program) in stages {
        map.set(slot, &program, 0)?;
    }
    Ok(())
}

/// Whether a program stands in a slot of a map of stages.
///
/// # Errors
/// When the map cannot be read.
pub fn is_there(stages: BorrowedFd<'_>, slot: u32) -> Result<bool> {
    const BPF_MAP_LOOKUP_ELEM: c_long = 1;
    let mut program = 0_u32;
    let mut attr = [0; 16];
    // map_fd, key, value
    attr[0] = u64::try_from(stages.as_raw_fd())?;
    attr[1] = (&raw const slot) as u64;
    attr[2] = (&raw mut program) as u64;
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
