//! Tail calls: the one way from program to program.

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map};
use lb_common::stage::STAGE_SLOTS;

/// The programs of all stages, by [`lb_common::stage::Stage::slot`]. Filled by the daemon: a stage before what leads to it.
#[btf_map]
pub(crate) static STAGES: ProgramArray<{ STAGE_SLOTS as usize }> = ProgramArray::new();

/// Enters the program in a slot, which is a constant; returns only if the slot is empty.
macro_rules! tail_call {
    ($packet:expr, $slot:expr) => {
        // SAFETY: the context of this run and a map of programs, in the registers of bpf_tail_call (helper 12). No reference lives
        // on in a program that was left, and nothing needs to be dropped.
        unsafe {
            core::arch::asm!(
                "r3 = {slot}",
                "call 12",
                slot = const $slot,
                inout("r1") $packet.context() => _,
                inout("r2") &raw const $crate::jump::STAGES => _,
                out("r0") _,
                out("r3") _,
                out("r4") _,
                out("r5") _,
                options(nostack)
            );
        }
    };
}

pub(crate) use tail_call;
