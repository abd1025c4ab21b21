//! VLAN tags: taken off first, put on again at the end. Between, no stage sees any.
//!
//! [`put_tags`] is global to the verifier (see [`crate::global`]): most frames have no tags.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    reason::Reason,
    vlan::{TAG_LEN, Tags},
};
use network_types::eth::EtherType;

use crate::packet::{MACS_LEN, Packet};
use lb_wire::Frame as _;

/// Offsets of the second of two tags, and of the bytes after it.
const SECOND: usize = MACS_LEN + TAG_LEN as usize;
const THIRD: usize = SECOND + TAG_LEN as usize;

/// Results of [`put`].
const DONE: u32 = 0;
const FAILED: u32 = 1;

/// Puts tags on a frame without any.
#[inline(always)]
pub(crate) fn put_tags(packet: &Packet, tags: Tags) -> Result<(), Reason> {
    // The verifier does not know the result of a global function, see `crate::global`.
    // SAFETY: the packet's own context.
    match black_box(unsafe { put(packet.context(), tags.0) }) {
        DONE => Ok(()),
        _ => Err(Reason::NoHeadroom),
    }
}

/// Puts the frame's own tags back on if it passes or is answered. A forwarded frame has the tags of its next hop.
#[inline(always)]
pub(crate) fn restore(packet: &Packet, reason: Reason) -> Reason {
    let forwarded = matches!(reason, Reason::SentBack | Reason::Redirected);
    if packet.tags == Tags::NONE || forwarded {
        return reason;
    }
    match put_tags(packet, packet.tags) {
        Ok(()) => reason,
        Err(reason) => reason,
    }
}

/// [`put_tags`].
///
/// # Safety
///
/// `ctx` is the context of the packet that the program runs on.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn put(ctx: *mut xdp_md, tags: u64) -> u32 {
    // SAFETY: required of the caller; the missing length of the frame is not used.
    let packet = unsafe { Packet::resume(ctx, Tags::NONE, 0) };
    match try_put(&packet, Tags(tags)) {
        Some(()) => DONE,
        None => FAILED,
    }
}

/// Takes the tags off a frame that carries an IP packet behind one or two of them, and returns them. A frame with other tags, or
/// with another packet behind them, stays as it is.
#[inline(always)]
pub(crate) fn take_tags(packet: &Packet) -> Option<Tags> {
    if !Tags::is_tag(packet.half(MACS_LEN)?.into()) {
        return Some(Tags::NONE);
    }
    let outer = packet.word(MACS_LEN)?;
    let mut tags = Tags::new(outer, 0);
    let (mut kind, mut bytes) = (packet.word(SECOND)?, TAG_LEN);
    if Tags::is_tag(kind) {
        tags = Tags::new(outer, kind);
        (kind, bytes) = (packet.word(THIRD)?, 2 * TAG_LEN);
    }
    let [low, high, ..] = kind.to_ne_bytes();
    let kind = u16::from_ne_bytes([low, high]);
    if kind != EtherType::Ipv4 as u16 && kind != EtherType::Ipv6 as u16 {
        return None;
    }
    let macs = packet.macs()?;
    packet.grow(-bytes.cast_signed())?;
    packet.set_macs(macs)?;
    Some(tags)
}

#[inline(always)]
fn try_put(packet: &Packet, tags: Tags) -> Option<()> {
    let macs = packet.macs()?;
    if tags.inner() == 0 {
        packet.grow(TAG_LEN.cast_signed())?;
        packet.put(MACS_LEN, [tags.outer()])?;
    } else {
        packet.grow(2 * TAG_LEN.cast_signed())?;
        packet.put(MACS_LEN, [tags.outer(), tags.inner()])?;
    }
    packet.set_macs(macs)
}
