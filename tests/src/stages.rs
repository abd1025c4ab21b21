//! The program with its stages, loaded by hand: what the daemon does, for measurements that need the maps for themselves.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{ProgramFd, Xdp},
};
use lb_common::{map_names, stage::Stage};

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
    let map = object.map_mut(map_names::STAGES).context("no map of stages")?;
    let mut map = ProgramArray::try_from(map)?;
    for (slot, program) in stages {
        map.set(slot, &program, 0)?;
    }
    Ok(())
}
