//! Half-open flows give way: where source ports or the flow table run out, a new flow takes the port and the entries of one
//! without proof that its client is real ([`PROVEN`]). A real client sends its SYN again; a forged one does not. Established
//! flows never give way.
//!
//! Ports are allocated in turn, so the first one that the turn reaches again is the oldest.

use lb_common::{
    flow::{FORWARD, PROVEN, REPLY, RST},
    limits::{
        GIVING_WAY_IDLE_SECS, GIVING_WAY_PATIENCE, SNAT_LAST_DRAWS, TCP_CLOSED_IDLE_SECS,
        UDP_OPENING_IDLE_SECS,
    },
    service::UDP,
};

use super::track;
use crate::{clock::now_secs, family::Family, global::global, maps::shares, scratch::Scratch};

/// The search for a port has looked at none yet that it would rather have free.
pub(crate) const ANY: u32 = GIVING_WAY_PATIENCE;

global! {
    /// Ends the flow that holds the port of the flow that begins, if it may give way. `tried` is the number of ports that were
    /// looked at before; the longer the search, the less it asks. Returns whether the port is free now.
    pub(super) fn end_holder(&mut Scratch, tried: u32) -> bool = end_holder_v4, end_holder_v6: end
}

#[inline(always)]
fn end<A: Family>(scratch: &mut Scratch<A>, tried: u32) -> bool {
    let Scratch {
        new_flow,
        peer_key: key,
        peer: flow,
        ..
    } = scratch;
    let reply_key = &new_flow.reply_key;
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
    // Another CPU may have written a second that has begun since `now`.
    let idle = now.saturating_sub(seen.max(flow.last_seen));
    let gives_way = if reply_key.protocol == UDP && state & PROVEN != 0 {
        // Answered, which is all that there is to know. Its client may have asked but once.
        flow.state & PROVEN == 0 && idle >= UDP_OPENING_IDLE_SECS
    } else if flow.state & PROVEN == 0 {
        tried >= GIVING_WAY_PATIENCE || idle >= GIVING_WAY_IDLE_SECS
    } else {
        // The last resort: its connection is likely to be over.
        tried >= SNAT_LAST_DRAWS && (state | flow.state) & RST != 0 && idle >= TCP_CLOSED_IDLE_SECS
    };
    // Of several CPUs that find it, one ends it, and none if its client has come in between. The client's entry goes first,
    // see `lb_common::flow`.
    if !gives_way || !entry.claim(flow) {
        return false;
    }
    A::remove(key);
    A::remove(reply_key);
    shares::count_gave_way(flow.service);
    true
}
