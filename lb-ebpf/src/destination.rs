//! Whether a frame is for this machine, by its link-layer destination ([`lb_common::own_mac`]). A router does not forward frames
//! for another station, nor broadcasts and multicasts (RFC 1812 section 5.3.4).

use core::hint::cold_path;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    own_mac::{Mac, OwnMac},
    reason::Reason,
};

use crate::{
    maps::own_macs,
    packet::{MACS_LEN, Packet},
    start::Start,
    verdict,
};

/// Results of [`destination`]: for this machine, for several stations, for another one.
const OURS: u32 = 0;
const GROUP: u32 = 1;

/// Refuses a frame that is not for this machine alone. `interface_slot`: of the interface that it came in on.
#[inline(always)]
pub(crate) fn check(packet: &Packet, interface_slot: u32) -> Result<(), Reason> {
    let mac = destination_of(packet).ok_or(Reason::Truncated)?;
    if own_macs::own_mac(interface_slot) == mac {
        return Ok(());
    }
    cold_path();
    // The verifier knows nothing of what a global function returns, see `crate::global`.
    // SAFETY: the packet's own context.
    match core::hint::black_box(unsafe { destination(packet.context()) }) {
        OURS => Ok(()),
        GROUP => Err(Reason::NotOurs),
        _ => Err(Reason::OtherHost),
    }
}

/// The destination; `None` if the frame is shorter than its addresses.
#[inline(always)]
fn destination_of(packet: &Packet) -> Option<Mac> {
    Some(Mac::of_word(Start::<MACS_LEN>::of(packet)?.double::<0>()))
}

/// The destination of a frame that does not have its interface's first address. A global function (see [`crate::global`]).
///
/// # Safety
///
/// `ctx` is the context of the packet that the program runs on.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn destination(ctx: *mut xdp_md) -> u32 {
    const OTHER: u32 = 2;
    // SAFETY: required of the caller.
    let packet = &unsafe { Packet::first_buffer(ctx) };
    let Some(mac) = destination_of(packet) else {
        return OTHER;
    };
    if mac.is_group() {
        return GROUP;
    }
    let takes_all = own_macs::own_mac(verdict::interface_slot(packet)) == Mac::ANY;
    if takes_all || own_macs::is_own_mac(&OwnMac::new(mac, packet.ifindex())) {
        OURS
    } else {
        OTHER
    }
}
