//! Which size would have fit the way to the backend.

use lb_common::reason::Reason;

use super::{error, write::Reply};
use crate::{
    budget, header::Protocol, maps::counters, next_stage::NextStage, packet::Packet, scratch::Scratch,
};

/// Says so to the sender of a packet that does not fit, and counts for the service what has become of it. Header and service are
/// in the scratch.
#[inline(always)]
pub(crate) fn stage<A: Reply>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let (Ok(reason) | Err(reason)) = answer(packet, scratch);
    counters::count_service_drop(scratch.service.id, reason);
    NextStage::Done(reason)
}

/// Whether or not an IPv4 packet has DF: the balancer does not fragment it, and its sender can.
#[inline(always)]
fn answer<A: Reply>(packet: &Packet, scratch: &Scratch<A>) -> Result<Reason, Reason> {
    let limit = scratch.exit.limit;
    // As for other messages; and none is sent about an error, or before a limit is known.
    if scratch.ip.protocol == Protocol::Icmp || !scratch.tuple.src.is_host() || limit == 0 {
        return Err(Reason::TooBig);
    }
    if !budget::admit_message(scratch.service.id)? {
        return Err(Reason::TooBig);
    }
    error::send(
        packet,
        &scratch.tuple,
        scratch.ip.packet_len(),
        A::TOO_BIG,
        limit.to_be(),
    )?;
    Ok(Reason::TooBigAnswered)
}
