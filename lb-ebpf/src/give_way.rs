//! Half-open flows give way: where source ports or the flow table run out, a new flow takes the port and the entries of one
//! whose client has shown nothing but that it can send ([`PROVEN`]). A client that is there sends its SYN again; one that is
//! forged never comes back. Established flows never give way.
//!
//! Ports are given out in turn, so the first one that the turn comes to again is the oldest.

use core::mem::offset_of;

use lb_common::{
    addr::{NetV4, NetV6},
    flow::{FORWARD, NatFlow, PROVEN, REPLY, RST},
    limits::{
        GIVING_WAY_IDLE_SECS, GIVING_WAY_PATIENCE, SNAT_PORT_TURNS, TCP_CLOSED_IDLE_SECS,
        UDP_OPENING_IDLE_SECS,
    },
    service::UDP,
};

use crate::{
    family::Family,
    maps::{self, Scratch},
    track::{self, now_secs},
};

/// The search for a port has looked at none yet that it would rather have free.
pub(crate) const ANY: u32 = GIVING_WAY_PATIENCE;

/// Ends the flow that holds the port of the flow that is being opened in the room, if it may give way. `tried` is the number
/// of ports that were looked at before; the longer the search, the less it asks. Returns whether the port is free now.
#[inline(always)]
pub(crate) fn end_holder<A: Family>(tried: u32) -> bool {
    let end = if A::IS_V6 { end_holder_v6 } else { end_holder_v4 };
    // As in `open::outcome`.
    core::hint::black_box(end(tried)) != 0
}

/// [`end_holder`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_holder_v4(tried: u32) -> u32 {
    end::<NetV4>(tried).into()
}

/// [`end_holder`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_holder_v6(tried: u32) -> u32 {
    end::<NetV6>(tried).into()
}

#[inline(always)]
fn end<A: Family>(tried: u32) -> bool {
    let Ok(mut room) = A::room() else { return false };
    let Scratch {
        opening,
        spare_key: key,
        spare: flow,
        ..
    } = &mut *room;
    let reply_key = &opening.reply_key;
    if track::find(reply_key, flow).is_none() || flow.direction != REPLY {
        return false;
    }
    let (state, seen) = (flow.state, flow.last_seen);
    *key = flow.peer(reply_key.protocol);
    let Some(entry) = track::find(key, flow) else {
        return false;
    };
    if flow.direction != FORWARD || flow.peer(reply_key.protocol) != *reply_key {
        return false;
    }
    let now = now_secs();
    let idle = now.wrapping_sub(seen).min(now.wrapping_sub(flow.last_seen));
    let gives_way = if reply_key.protocol == UDP && state & PROVEN != 0 {
        // Answered, which is all that there is to know. Its client may have asked but once.
        flow.state & PROVEN == 0 && idle >= UDP_OPENING_IDLE_SECS
    } else if flow.state & PROVEN == 0 {
        tried >= GIVING_WAY_PATIENCE || idle >= GIVING_WAY_IDLE_SECS
    } else {
        // The last resort: its connection is likely to be over.
        tried >= SNAT_PORT_TURNS && (state | flow.state) & RST != 0 && idle >= TCP_CLOSED_IDLE_SECS
    };
    // Of several CPUs that find it, one ends it, and none if its client has come in between. The client's entry goes first,
    // see `lb_common::flow`.
    if !gives_way || !entry.claim(flow) {
        return false;
    }
    A::remove(key);
    A::remove(reply_key);
    maps::shares::count_gave_way(flow.service);
    true
}

/// Where the word of an entry stands that tells of each packet, and of who has claimed it.
pub(crate) const fn word_at<A>() -> usize {
    let at = offset_of!(NatFlow<A>, service);
    assert!(
        at.is_multiple_of(8)
            && offset_of!(NatFlow<A>, direction) == at + 2
            && offset_of!(NatFlow<A>, state) == at + 3
            && offset_of!(NatFlow<A>, last_seen) == at + 4,
        "one word is compared and swapped"
    );
    at
}
