//! Loads programs of the packet path and puts stages into their slots.

use std::{
    cmp,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use lb_common::{monitor, stage::Stage};

use super::{
    loading::{self, NewProgram, Refusal},
    make::on_all_cpus,
    object::{Program, Variant},
    prepare::Ready,
    sys,
};
use crate::error::DatapathError;

/// Lines of the verifier's log in an error: the last ones have the objection.
const VERIFIER_LINES: usize = 8;

/// Why programs were not loaded.
pub(super) enum LoadError {
    /// The kernel refuses one.
    Refused(String),
    /// Another failure.
    Failed(DatapathError),
}

/// Loads the programs in `loads`, and puts each stage into its slot as soon as it is loaded.
pub(super) fn load_into(
    ready: &Ready,
    stages: BorrowedFd<'_>,
    frags: bool,
    loads: impl Fn(&Program) -> bool,
) -> Result<Vec<(&'static str, OwnedFd)>, LoadError> {
    let mut programs: Vec<&Program> = ready
        .parts
        .programs
        .iter()
        .filter(|program| loads(program))
        .collect();
    // The longest first, so that no CPU is left with one of them at the end.
    programs.sort_by_key(|program| cmp::Reverse(program.size()));
    let load = |program: &Program| {
        let fd = loading::load_program(&NewProgram {
            name: program.name,
            license: ready.parts.license,
            instructions: &ready.instructions(program, Some(stages)),
            btf: ready.btf.as_fd(),
            functions: &program.functions,
            lines: &program.lines,
            frags,
        })
        .map_err(|refusal| LoadError::Refused(refused(&refusal)))?;
        // At once: the kernel writes the jump to a stage into each program that was loaded before.
        for (slot, _) in slots(ready.variant).filter(|(_, name)| *name == program.name) {
            sys::update(stages, &slot, &[fd.as_raw_fd()]).map_err(|source| {
                LoadError::Failed(DatapathError::Io {
                    what: "cannot fill the map of stages".to_owned(),
                    source,
                })
            })?;
        }
        Ok((program.name, fd))
    };
    on_all_cpus(programs.len(), |index| load(programs[index]))
        .map_err(LoadError::Failed)?
        .into_iter()
        .collect()
}

/// The slots of the map of stages, and the programs in them.
pub(super) fn slots(variant: Variant) -> impl Iterator<Item = (u32, &'static str)> {
    let usual = Stage::ALL.iter().flat_map(|stage| {
        let [v4, v6] = stage.programs();
        [(stage.slot(false), v4), (stage.slot(true), v6)]
    });
    let more = match variant {
        Variant::Usual => None,
        Variant::Monitored => Some((monitor::SLOT, monitor::PROGRAM)),
    };
    usual.chain(more)
}

/// The kernel's error with the last lines of the verifier's log.
pub(super) fn refused(refusal: &Refusal) -> String {
    let lines: Vec<&str> = refusal
        .log
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n  ");
    if last.is_empty() {
        refusal.error.to_string()
    } else {
        format!("{}; the verifier's last words:\n  {last}", refusal.error)
    }
}
