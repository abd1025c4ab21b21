//! The one exit: what happened to a packet is counted here, once, and becomes an XDP action.

use aya_ebpf::{Global, bindings::xdp_action};
use lb_common::reason::{Action, Reason};

use crate::{maps, packet::Packet};

/// Which of the daemon's interfaces this program is loaded for, below `MAX_INTERFACES`; set by the loader.
#[unsafe(no_mangle)]
static INTERFACE_SLOT: Global<u32> = Global::new(0);

/// What was done with a packet that is ours.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Sent out of the interface it came in on.
    SentBack,
    /// Sent out of another interface.
    Redirected,
}

/// Counts the packet and returns the XDP action.
#[inline(always)]
pub(crate) fn finish(packet: &Packet, outcome: Result<Verdict, Reason>) -> u32 {
    let reason = match outcome {
        Ok(Verdict::SentBack) => Reason::SentBack,
        Ok(Verdict::Redirected) => Reason::Redirected,
        Err(reason) => reason,
    };
    maps::count_verdict(INTERFACE_SLOT.load(), reason, u64::from(packet.frame_len));
    #[cfg(feature = "trace")]
    trace(packet, reason);
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
        packet.frame_len,
        reason as u32
    );
}
