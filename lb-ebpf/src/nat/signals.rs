//! Signals of flows about their backends' health, counted for the daemon. All of it is rare: other packets pay for a
//! look at their flags at most.

use lb_common::{
    backend::RESOLVED,
    flow::{NatFlow, PROVEN, REPLY, RST, Tuple},
    limits::{SYN_REPEAT_MILLIS, SYN_REPEAT_SECS},
};

use super::track::Entry;
use crate::{
    clock::now_millis,
    family::Family,
    maps::{counters, cursors},
    select,
};

/// A backend resets the flow `known`, before its packet changes the entry. A reset as the first answer refuses the
/// flow.
#[inline(always)]
pub(crate) fn reset<A>(known: &NatFlow<A>) {
    if known.state & (PROVEN | RST) == 0 && select::living_owner(known).is_some() {
        counters::count_signal(known.backend, |signals| signals.refused += 1);
    }
}

/// The client of the flow `known` repeats its SYN, and the backend has not answered. It counts where it may be for want of
/// an answer, and where another client does the same: one alone may send what the backend has reason not to answer.
#[inline(always)]
pub(crate) fn repeated<A: Family>(tuple: &Tuple<A>, known: &NatFlow<A>, entry: Entry<A>) {
    let now = now_millis();
    if now.wrapping_sub(known.handshake) < SYN_REPEAT_MILLIS {
        return;
    }
    entry.set_handshake(now);
    if select::living_owner(known).is_none() {
        return;
    }
    if cursors::follows_another(known.backend, A::source_hash(tuple), SYN_REPEAT_SECS) {
        counters::count_signal(known.backend, |signals| signals.unanswered += 1);
    }
}

/// An ICMP error of this type and code about a packet to the backend of `flow`, which came in by interface `ifindex`. It counts
/// only if that interface leads to the backend: hosts on other sides of the balancer cannot know the path to it.
#[inline(always)]
pub(crate) fn error_about<A: Family>(flow: &NatFlow<A>, kind: u8, code: u8, ifindex: u32) {
    if A::is_unreachable(kind, code)
        && flow.direction == REPLY
        && let Some(owner) = select::living_owner(flow)
        && (!owner.has(RESOLVED) || owner.ifindex == ifindex)
    {
        counters::count_signal(flow.backend, |signals| signals.unreachable += 1);
    }
}
