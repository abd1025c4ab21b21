//! The one exit: what happened to a packet is counted here, once, and becomes an XDP action.

use core::ptr;

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    interfaces::InterfaceSlots,
    limits::MAX_INTERFACES,
    reason::{Action, Reason},
};

use crate::{maps::counters, next_stage::NextStage, packet::Packet};

/// Where the packets of each of the daemon's interfaces are counted; set by the loader.
#[unsafe(no_mangle)]
static INTERFACE_SLOTS: InterfaceSlots = InterfaceSlots::ONE;

/// The slot of the interface that a packet came in on.
#[inline(always)]
pub(crate) fn interface_slot(packet: &Packet) -> u32 {
    // Volatile: the loader sets the value, which the compiler takes for constant.
    // SAFETY: reads of a constant.
    let multiplier = unsafe { ptr::read_volatile(&raw const INTERFACE_SLOTS.multiplier) };
    let place = InterfaceSlots::place(packet.ifindex(), multiplier);
    // SAFETY: reads of a constant; places are below the number of slots.
    u32::from(unsafe { ptr::read_volatile((&raw const INTERFACE_SLOTS.slots).cast::<u8>().add(place)) })
}

/// Whether the program runs on an interface, which then takes frames from it.
#[inline(always)]
pub(crate) fn serves(ifindex: u32) -> bool {
    // Volatile: the loader sets the value, which the compiler takes for constant.
    // SAFETY: reads of a constant.
    let multiplier = unsafe { ptr::read_volatile(&raw const INTERFACE_SLOTS.multiplier) };
    let place = InterfaceSlots::place(ifindex, multiplier);
    // SAFETY: reads of a constant; places are below the number of slots, and slots below the number of interfaces.
    unsafe {
        let slot = ptr::read_volatile((&raw const INTERFACE_SLOTS.slots).cast::<u8>().add(place));
        let slot = usize::from(slot) % MAX_INTERFACES as usize;
        ptr::read_volatile((&raw const INTERFACE_SLOTS.indices).cast::<u32>().add(slot)) == ifindex
    }
}

/// How a packet that is ours was sent: one of the constants. As large as a reason, so that no word of a `Result` of the two
/// is ever unset: the compiler copies such words, and the verifier refuses that.
#[derive(Clone, Copy)]
pub(crate) struct Verdict(Reason);

impl Verdict {
    /// Out of the interface it came in on.
    pub(crate) const SENT_BACK: Self = Self(Reason::SentBack);
    /// Out of another interface.
    pub(crate) const REDIRECTED: Self = Self(Reason::Redirected);
}

/// The reason under which an outcome counts.
#[inline(always)]
pub(crate) fn reason(outcome: Result<Verdict, Reason>) -> Reason {
    match outcome {
        Ok(Verdict(reason)) | Err(reason) => reason,
    }
}

/// The next stage after an outcome.
#[inline(always)]
pub(crate) fn next(outcome: Result<Verdict, NextStage>) -> NextStage {
    match outcome {
        Ok(Verdict(reason)) => NextStage::Done(reason),
        Err(next) => next,
    }
}

/// Counts the packet, on the interface with this slot, and returns the XDP action.
#[inline(always)]
pub(crate) fn finish(packet: &Packet, interface_slot: u32, reason: Reason) -> u32 {
    counters::count_verdict(interface_slot, reason, u64::from(packet.received_len()));
    #[cfg(feature = "monitor")]
    crate::monitor::finish(packet, interface_slot, reason);
    #[cfg(feature = "trace")]
    trace(packet, reason);
    action(reason)
}

/// The XDP action of a reason.
#[inline(always)]
pub(crate) fn action(reason: Reason) -> u32 {
    match reason.action() {
        Action::Tx => xdp_action::XDP_TX,
        Action::Redirect => xdp_action::XDP_REDIRECT,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Aborted => xdp_action::XDP_ABORTED,
    }
}

/// Logs the verdict. Not inlined: formatting would take the stack that the packet path needs.
#[cfg(feature = "trace")]
#[inline(never)]
fn trace(packet: &Packet, reason: Reason) {
    let context = aya_ebpf::programs::XdpContext::new(packet.context());
    aya_log_ebpf::info!(
        &context,
        "interface {} length {} reason {}",
        packet.ifindex(),
        packet.received_len(),
        reason as u32
    );
}
