//! What flows tell about their backends' health, counted for the daemon.
//!
//! All of it is rare: a packet that says nothing of the kind pays for a look at its flags at most. The functions at work
//! are what the verifier calls global, as in [`crate::open`]; they take the packet's flow from the room.

use lb_common::{
    addr::{NetV4, NetV6},
    flow::{PROVEN, REPLY},
};

use crate::{
    family::Family,
    maps::{self, Scratch},
    parse::TcpFlags,
    pick, track,
};

/// What a packet may tell.
const RESET: u32 = 0;
const UNREACHABLE: u32 = 1;
const REPEATED: u32 = 2;

/// A backend's packet of the flow in the room, whose entry it has not touched yet: a reset that is its first one refuses
/// the flow.
#[inline(always)]
pub(crate) fn answered<A: Family>(flags: Option<TcpFlags>) {
    if flags.is_some_and(|flags| flags.rst) {
        tell::<A>(RESET);
    }
}

/// An ICMP error of this type and code about the flow in the room.
#[inline(always)]
pub(crate) fn error_about<A: Family>(kind: u8, code: u8) {
    if A::is_unreachable(kind, code) {
        tell::<A>(UNREACHABLE);
    }
}

/// The client of the flow in the room repeats its SYN.
#[inline(always)]
pub(crate) fn repeated<A: Family>() {
    tell::<A>(REPEATED);
}

#[inline(always)]
fn tell<A: Family>(what: u32) {
    let tell = if A::IS_V6 { tell_v6 } else { tell_v4 };
    tell(what);
}

/// [`told`]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_v4(what: u32) -> u32 {
    told::<NetV4>(what)
}

/// [`told`]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_v6(what: u32) -> u32 {
    told::<NetV6>(what)
}

/// Counts for the backend of the flow in the room what a packet of it tells, unless the backend's id is another one's by
/// now. Returns 0.
#[inline(always)]
fn told<A: Family>(what: u32) -> u32 {
    let Ok(mut room) = A::room() else { return 0 };
    let Scratch {
        tuple,
        known,
        spare_key,
        spare,
        ..
    } = &mut *room;
    let unproven = known.state & PROVEN == 0;
    let speaks = match what {
        RESET => unproven,
        UNREACHABLE => known.direction == REPLY,
        _ => {
            *spare_key = known.peer(tuple.protocol);
            track::find_reply(spare_key, spare, tuple) && spare.state & PROVEN == 0
        }
    };
    if speaks && pick::living_owner(known).is_some() {
        maps::count_signal(known.backend, |signals| match what {
            RESET => signals.refused += 1,
            UNREACHABLE => signals.unreachable += 1,
            _ => signals.unanswered += 1,
        });
    }
    0
}
