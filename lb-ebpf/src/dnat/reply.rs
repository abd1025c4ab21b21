//! Replies of backends of mode `dnat`, and ICMP errors about clients' packets, which have a reply's tuple.

use lb_common::{
    addr::NetPort,
    flow::{ROUTED, Tuple},
    reason::Reason,
    reply::ReplyAs,
};

use super::route::{self, port};
use crate::{
    family::Family,
    forward::{
        quote,
        rewrite::{self, TtlAction},
    },
    header::Protocol,
    maps::{counters, tables},
    nat::track,
    next_stage::NextStage,
    packet::Packet,
    scratch::Scratch,
    transport,
    verdict::{self, Verdict},
};

/// Sends a reply on to its client.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let Scratch { tuple, ip, flow, .. } = &mut *scratch;
    let found = endpoint(tuple);
    // An option of what lies in memory is two words, of which one may be unset.
    let (is_reply, whose) = (found.is_some(), found.unwrap_or_default());
    if !is_reply {
        return route::foreign::<A>(packet, ip);
    }
    flow.src = whose.address;
    flow.dst = tuple.dst;
    flow.src_port = port(whose.port, tuple.src_port);
    flow.dst_port = tuple.dst_port;
    (flow.service, flow.backend, flow.direction) = (whose.service, whose.backend, ROUTED);
    track::set_deltas(tuple, flow);
    scratch.drop_counts_for = whose.service;
    verdict::next(reply(packet, scratch, &whose))
}

/// The owner of replies from the source of this tuple: exactly, else by the wildcard.
#[inline(always)]
fn endpoint<A: Family>(tuple: &Tuple<A>) -> Option<ReplyAs<A>> {
    let exact = A::reply_as(tuple.src, tuple.src_port, tuple.protocol);
    if exact.is_some() || !tables::has_wildcard() {
        return exact;
    }
    A::reply_as(tuple.src, NetPort(0), tuple.protocol)
}

#[inline(always)]
fn reply<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    whose: &ReplyAs<A>,
) -> Result<Verdict, NextStage> {
    let Scratch {
        ip,
        flow,
        exit,
        fragments,
        ..
    } = &mut *scratch;
    let by_kernel = route::leaves_by_kernel(exit, packet, ip, &flow.src, &flow.dst)?;
    if ip.protocol != Protocol::Icmp {
        transport::check::<A>(packet, ip)?;
    }
    rewrite::may_route(ip)?;
    let ttl = if by_kernel {
        TtlAction::Keep
    } else {
        TtlAction::Decrement
    };
    counters::count_reply(whose.service, whose.backend, u64::from(packet.frame_len));
    if ip.protocol == Protocol::Icmp {
        // As in `icmp`: also where a router between us and the backend has sent it.
        quote::translate(packet, scratch, false, ttl)?;
    } else {
        rewrite::translate(packet, ip, flow, fragments, ttl)?;
    }
    if by_kernel {
        return Err(Reason::ReplyByKernel.into());
    }
    scratch.exit.hop = scratch.exit.next_hop(packet);
    Ok(scratch.exit.leave(packet)?)
}
