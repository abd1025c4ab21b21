//! Packets whose slot does not say by itself where they go: their flow is looked up, and recorded where it must be.
//!
//! The functions that are not generic are what the verifier calls global, as in [`crate::open`].

use lb_common::{
    addr::{NetV4, NetV6},
    backend::BackendId,
    ring_slot::RingSlot,
    service::{Service, TRACKS_ALL},
    track::{self, Tick},
};

use crate::{family::Family, maps::Records, pick, track::now_secs};

/// What a global function returns where it finds nobody: no backend has this number.
const NOBODY: u32 = 0;

/// [`owner_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_v4(service: *const Service, slot: u32, opens: bool) -> u32 {
    follow::<NetV4>(service, slot, opens)
}

/// [`owner_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_v6(service: *const Service, slot: u32, opens: bool) -> u32 {
    follow::<NetV6>(service, slot, opens)
}

/// [`asked_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn peek_v4(slot: u32, opens: bool) -> u32 {
    peek::<NetV4>(slot, opens)
}

/// [`asked_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn peek_v6(slot: u32, opens: bool) -> u32 {
    peek::<NetV6>(slot, opens)
}

/// The backend of a packet whose tuple is in the room. `opens`: it is a TCP SYN without ACK.
#[inline(always)]
pub(crate) fn owner_in<A: Family>(service: &Service, slot: RingSlot, opens: bool) -> BackendId {
    let follow = if A::IS_V6 { follow_v6 } else { follow_v4 };
    backend(follow(service, slot.to_word(), opens))
}

/// As [`owner_in`], but leaves no trace.
#[inline(always)]
pub(crate) fn asked_in<A: Family>(slot: RingSlot, opens: bool) -> BackendId {
    let peek = if A::IS_V6 { peek_v6 } else { peek_v4 };
    backend(peek(slot.to_word(), opens))
}

#[inline(always)]
fn backend(number: u32) -> BackendId {
    // The verifier knows nothing about what a global function returns, so the compiler must not either.
    match u16::try_from(core::hint::black_box(number)) {
        Ok(number) => BackendId(number),
        Err(_) => BackendId::NONE,
    }
}

#[inline(always)]
fn follow<A: Family>(service: *const Service, slot: u32, opens: bool) -> u32 {
    // SAFETY: the verifier sees to it that callers pass a whole record, or nothing.
    let Some(service) = (unsafe { service.as_ref() }) else {
        return NOBODY;
    };
    let Ok(room) = A::room() else { return NOBODY };
    let mut records = Records(&room.tuple);
    let slot = RingSlot::from_word(slot);
    let now = Tick::from_secs(u64::from(now_secs()));
    let owner = if service.has(TRACKS_ALL) {
        track::follow_all(|| pick::in_turn(service, slot), opens, now, &mut records)
    } else {
        track::follow(slot, opens, now, &mut records)
    };
    u32::from(owner.0)
}

#[inline(always)]
fn peek<A: Family>(slot: u32, opens: bool) -> u32 {
    let Ok(room) = A::room() else { return NOBODY };
    u32::from(track::peek(RingSlot::from_word(slot), opens, &mut Records(&room.tuple)).0)
}
