//! From one stage to the next: the one place that dispatches, and the one way out.

use core::ptr;

use aya_ebpf::bindings::xdp_md;
use lb_common::{addr::NetV4, reason::Reason, service::ServiceId, stage::Stage};

use crate::{
    family::Family, jump::tail_call, maps::counters, next_stage::NextStage, packet::Packet, scratch::Scratch,
    verdict, vlan,
};

/// Runs a stage: takes the packet up where the stage before left it, and goes on to what comes next, one of `NEXT`
/// ([`Stage::leads_to`]).
///
/// # Safety
///
/// A program's main function calls it, as all that it does, with its context.
#[inline(always)]
pub(crate) unsafe fn run<A: Family, const NEXT: u32>(
    ctx: *mut xdp_md,
    stage: impl FnOnce(&Packet, &mut Scratch<A>) -> NextStage,
) -> u32 {
    // SAFETY: by the contract, this is the one place of the program that takes the scratch, and takes it once.
    match unsafe { A::scratch() } {
        Ok(scratch) => {
            // SAFETY: by the contract.
            let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
            go_on::<A, NEXT>(&packet, scratch, stage)
        }
        Err(reason) => {
            // SAFETY: by the contract.
            let packet = unsafe { Packet::new(ctx) };
            verdict::finish(&packet, verdict::interface_slot(&packet), reason)
        }
    }
}

/// As [`run`], of a packet that no stage before has taken up.
///
/// # Safety
///
/// As [`run`].
#[inline(always)]
pub(crate) unsafe fn run_on<A: Family, const NEXT: u32>(
    packet: &Packet,
    interface_slot: u32,
    stage: impl FnOnce(&Packet, &mut Scratch<A>) -> NextStage,
) -> u32 {
    // SAFETY: as in `run`.
    match unsafe { A::scratch() } {
        Ok(scratch) => {
            scratch.keep(packet, interface_slot);
            // SAFETY: the same packet.
            let packet = unsafe {
                Packet::resume(
                    packet.context(),
                    forget(&scratch.tags),
                    forget(&scratch.frame_len),
                )
            };
            go_on::<A, NEXT>(&packet, scratch, stage)
        }
        Err(reason) => verdict::finish(packet, interface_slot, reason),
    }
}

/// A value as the verifier knows nothing about it, see [`Scratch::forget`].
#[inline(always)]
fn forget<T: Copy>(value: &T) -> T {
    // SAFETY: a reference.
    unsafe { ptr::read_volatile(value) }
}

#[inline(always)]
fn go_on<A: Family, const NEXT: u32>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    stage: impl FnOnce(&Packet, &mut Scratch<A>) -> NextStage,
) -> u32 {
    scratch.drop_counts_for = ServiceId::NONE;
    let next = stage(packet, scratch);
    let next = scratch.forget(next);
    if let NextStage::Done(reason) = next
        && scratch.drop_counts_for != ServiceId::NONE
    {
        counters::count_drop(scratch.drop_counts_for, reason);
    }
    dispatch::<A, NEXT>(packet, scratch.interface_slot, next)
}

/// Enters the next stage, one of `NEXT`, or ends the packet's way: counts it, and returns the XDP action. Each way to enter a stage
/// costs time when the program is loaded, and again when the stage is put in its slot.
#[inline(always)]
pub(crate) fn dispatch<A: Family, const NEXT: u32>(
    packet: &Packet,
    interface_slot: u32,
    next: NextStage,
) -> u32 {
    match next {
        NextStage::Done(reason) => {
            return verdict::finish(packet, interface_slot, vlan::restore(packet, reason));
        }
        NextStage::Classify => enter::<NetV4, { Stage::Classify as u32 }, NEXT>(packet),
        NextStage::HostSocket => enter::<A, { Stage::HostSocket as u32 }, NEXT>(packet),
        NextStage::EndTunnel => enter::<NetV4, { Stage::EndTunnel as u32 }, NEXT>(packet),
        NextStage::Prefix => enter::<A, { Stage::Prefix as u32 }, NEXT>(packet),
        NextStage::Clients => enter::<A, { Stage::Clients as u32 }, NEXT>(packet),
        NextStage::Quic => enter::<A, { Stage::Quic as u32 }, NEXT>(packet),
        NextStage::SlowPath => enter::<A, { Stage::SlowPath as u32 }, NEXT>(packet),
        NextStage::Nat => enter::<A, { Stage::Nat as u32 }, NEXT>(packet),
        NextStage::NewFlow => enter::<A, { Stage::NewFlow as u32 }, NEXT>(packet),
        NextStage::NoFlow => enter::<A, { Stage::NoFlow as u32 }, NEXT>(packet),
        NextStage::Dnat => enter::<A, { Stage::Dnat as u32 }, NEXT>(packet),
        NextStage::DnatReply => enter::<A, { Stage::DnatReply as u32 }, NEXT>(packet),
        NextStage::Icmp => enter::<A, { Stage::Icmp as u32 }, NEXT>(packet),
        NextStage::Echo => enter::<A, { Stage::Echo as u32 }, NEXT>(packet),
        NextStage::Fragment => enter::<A, { Stage::Fragment as u32 }, NEXT>(packet),
        NextStage::Reject => enter::<A, { Stage::Reject as u32 }, NEXT>(packet),
        NextStage::TooBig => enter::<A, { Stage::TooBig as u32 }, NEXT>(packet),
    }
    let reason = vlan::restore(packet, Reason::StageMissing);
    verdict::finish(packet, interface_slot, reason)
}

/// Enters the program of a stage, if it is one of `NEXT`; comes back only if it is not, or there is no such program. The slot is
/// a constant of the instruction, and each call differs from all others: so the compiler cannot make one of several, and the
/// kernel makes a direct jump of each.
#[inline(always)]
fn enter<A: Family, const STAGE: u32, const NEXT: u32>(packet: &Packet) {
    if NEXT & (1 << STAGE) == 0 {
        return;
    }
    tail_call!(packet, 2 * STAGE + A::IS_V6 as u32);
}
