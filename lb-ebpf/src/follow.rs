//! Packets whose slot alone does not select a backend: their flow is looked up, and recorded if necessary.
//!
use lb_common::{
    backend::BackendId,
    ring_slot::RingSlot,
    service::{IN_TURN, Service, TRACKS_ALL},
    track::{self, Tick},
};

use crate::{
    clock::now_secs,
    family::Family,
    global::global,
    maps::{cursors, late, records::Records, tables},
    scratch::PacketTuple,
};

/// Result of a global function that finds no backend: no backend has this number.
const NOBODY: u32 = 0;

/// The backend of a packet with this tuple. `is_syn`: it is a TCP SYN without ACK.
#[inline(always)]
pub(crate) fn owner<A: Family>(
    tuple: &mut PacketTuple<A>,
    service: &Service,
    slot: RingSlot,
    is_syn: bool,
) -> BackendId {
    if !late::are_there() {
        return slot.current;
    }
    backend(follow(tuple, service, slot.to_word(), is_syn))
}

/// As [`owner`], but leaves no trace.
#[inline(always)]
pub(crate) fn recorded_owner<A: Family>(
    tuple: &mut PacketTuple<A>,
    slot: RingSlot,
    is_syn: bool,
) -> BackendId {
    if !late::are_there() {
        return slot.current;
    }
    backend(peek(tuple, slot.to_word(), is_syn))
}

global! {
    /// [`owner`].
    fn follow(&mut PacketTuple, service: *const Service, slot: u32, is_syn: bool) -> u32 = follow_v4, follow_v6: followed
}

global! {
    /// [`recorded_owner`].
    fn peek(&mut PacketTuple, slot: u32, is_syn: bool) -> u32 = peek_v4, peek_v6: peeked
}

#[inline(always)]
fn backend(number: u32) -> BackendId {
    match u16::try_from(number) {
        Ok(number) => BackendId(number),
        Err(_) => BackendId::NONE,
    }
}

#[inline(always)]
fn followed<A: Family>(tuple: &mut PacketTuple<A>, service: *const Service, slot: u32, is_syn: bool) -> u32 {
    // SAFETY: the verifier sees to it that callers pass a whole record, or nothing.
    let Some(service) = (unsafe { service.as_ref() }) else {
        return NOBODY;
    };
    let mut records = Records(tuple);
    let slot = RingSlot::from_word(slot);
    let now = Tick::from_secs(u64::from(now_secs()));
    let owner = if service.has(TRACKS_ALL) {
        track::follow_all(|| in_turn(service, slot), is_syn, now, &mut records)
    } else {
        track::follow(slot, is_syn, now, &mut records)
    };
    u32::from(owner.0)
}

#[inline(always)]
fn peeked<A: Family>(tuple: &mut PacketTuple<A>, slot: u32, is_syn: bool) -> u32 {
    u32::from(track::peek(RingSlot::from_word(slot), is_syn, &mut Records(tuple)).0)
}

/// The slot for a new flow: the next one, where the service's flows take turns, else `slot`.
#[inline(always)]
pub(crate) fn in_turn(service: &Service, slot: RingSlot) -> RingSlot {
    if !service.has(IN_TURN) || service.ring_size == 0 {
        return slot;
    }
    let Ok(turn) = cursors::service_turn(service.id) else {
        return slot;
    };
    #[expect(clippy::cast_possible_truncation, reason = "less than the ring's size")]
    let index = (turn % u64::from(service.ring_size)) as u32;
    tables::ring_slot(service.ring, index).unwrap_or(slot)
}
