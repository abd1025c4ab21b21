//! Clients' packets to backends of mode `dnat`, and ICMP errors about packets to them.

use lb_common::{backend::IPV6, flow::FORWARD, reason::Reason};

use super::route::port;
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
    scratch::{NextHop, Scratch},
    verdict::{self, Verdict},
};

/// Sends a packet to the backend that was selected, and counts it.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    scratch.drop_counts_for = scratch.service.id;
    verdict::next(send(packet, scratch))
}

#[inline(always)]
fn send<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Verdict, NextStage> {
    let Scratch {
        tuple,
        ip,
        service,
        selected,
        flow,
        exit,
        fragments,
        ..
    } = scratch;
    let backend = tables::backend(selected.backend)?;
    if backend.has(IPV6) != A::IS_V6 {
        return Err(Reason::ModeMissing.into());
    }
    rewrite::may_route(ip)?;
    flow.src = tuple.src;
    flow.dst = A::from_record(&backend.address);
    flow.src_port = tuple.src_port;
    flow.dst_port = port(backend.port, tuple.dst_port);
    (flow.service, flow.direction) = (service.id, FORWARD);
    (flow.backend, flow.generation) = (selected.backend, backend.generation);
    track::set_deltas(tuple, flow);
    exit.hop = NextHop::towards(packet, ip, backend, &flow.src, &flow.dst, exit)?;
    let is_syn = selected.is_syn != 0;
    counters::count_forward(service.id, selected.backend, u64::from(packet.frame_len), is_syn);
    if ip.protocol == Protocol::Icmp {
        // Whoever sent it: a backend sees the clients' side of the network as it is.
        quote::translate(packet, scratch, true, TtlAction::Decrement)?;
        return Ok(scratch.exit.leave(packet)?);
    }
    rewrite::translate(packet, ip, flow, fragments, TtlAction::Decrement)?;
    Ok(exit.leave(packet)?)
}
