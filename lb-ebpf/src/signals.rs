//! What flows tell about their backends' health, counted for the daemon.
//!
//! All of it is rare: a packet that says nothing of the kind pays for a look at its flags at most. The functions at work
//! are what the verifier calls global, as in [`crate::open`]; they take the packet's flow from the room.

use lb_common::{
    addr::{NetV4, NetV6},
    backend::RESOLVED,
    flow::{NatFlow, PROVEN, REPLY, RST, Tuple},
    limits::{SYN_REPEAT_MILLIS, SYN_REPEAT_SECS},
};

use crate::{
    family::Family,
    maps, pick,
    track::{self, Entry},
};

/// A backend resets the flow `known`, whose entry its packet has not touched yet: where it is its first answer, it refuses
/// the flow.
#[inline(always)]
pub(crate) fn reset<A>(known: &NatFlow<A>) {
    if known.state & (PROVEN | RST) == 0 && pick::living_owner(known).is_some() {
        maps::count_signal(known.backend, |signals| signals.refused += 1);
    }
}

/// An ICMP error of this type and code about the flow in the room, that came in by interface `ifindex`.
#[inline(always)]
pub(crate) fn error_about<A: Family>(kind: u8, code: u8, ifindex: u32) {
    if A::is_unreachable(kind, code) {
        let unreachable = if A::IS_V6 { unreachable_v6 } else { unreachable_v4 };
        unreachable(ifindex);
    }
}

/// The client of the flow `known` repeats its SYN, and the backend has not answered. It counts where it may be for want of
/// an answer, and where another client does the same: one alone may send what the backend has reason not to answer.
#[inline(always)]
pub(crate) fn repeated<A: Family>(tuple: &Tuple<A>, known: &NatFlow<A>, entry: Entry<A>) {
    let now = track::now_millis();
    if now.wrapping_sub(known.handshake) < SYN_REPEAT_MILLIS {
        return;
    }
    entry.set_handshake(now);
    if pick::living_owner(known).is_none() {
        return;
    }
    if maps::follows_another(known.backend, A::source_hash(tuple), SYN_REPEAT_SECS) {
        maps::count_signal(known.backend, |signals| signals.unanswered += 1);
    }
}

/// [`unreachable`]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unreachable_v4(ifindex: u32) -> u32 {
    unreachable::<NetV4>(ifindex)
}

/// [`unreachable`]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unreachable_v6(ifindex: u32) -> u32 {
    unreachable::<NetV6>(ifindex)
}

/// Counts an error about a packet to the backend of the flow in the room, if it came by the interface towards the backend:
/// who is on another side of the balancer knows nothing of the way to it. Returns 0.
#[inline(always)]
fn unreachable<A: Family>(ifindex: u32) -> u32 {
    let Ok(room) = A::room() else { return 0 };
    let known = &room.known;
    if let Some(owner) = pick::living_owner(known)
        && known.direction == REPLY
        && (!owner.has(RESOLVED) || owner.ifindex == ifindex)
    {
        maps::count_signal(known.backend, |signals| signals.unreachable += 1);
    }
    0
}
