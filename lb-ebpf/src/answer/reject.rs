//! Answers to packets that no backend takes.

use lb_common::reason::Reason;

use super::{error, reset, write::Reply};
use crate::{
    budget, header::Protocol, maps::counters, next_stage::NextStage, packet::Packet, scratch::Scratch,
};

/// Answers a packet of a service that has no backend, and counts that for the service.
#[inline(always)]
pub(crate) fn stage<A: Reply>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let (Ok(reason) | Err(reason)) = answer(packet, scratch);
    counters::count_service_drop(scratch.service.id, reason);
    NextStage::Done(reason)
}

#[inline(always)]
fn answer<A: Reply>(packet: &Packet, scratch: &Scratch<A>) -> Result<Reason, Reason> {
    let Scratch {
        ip, tuple, service, ..
    } = scratch;
    // No answer to a source that is not a single host (RFC 1122 section 3.2.2).
    if !tuple.src.is_host() {
        return Err(Reason::NoBackend);
    }
    match ip.protocol {
        // A reset acknowledges the length of the segment, which needs the other fragments.
        Protocol::Tcp if A::is_fragment(packet, ip) => Err(Reason::NoBackend),
        Protocol::Tcp => {
            reset::send(packet, ip, tuple)?;
            Ok(Reason::RejectedReset)
        }
        Protocol::Udp => {
            if !budget::admit_message(service.id)? {
                return Err(Reason::UnreachableRate);
            }
            error::send(packet, tuple, ip.packet_len(), A::PORT_UNREACHABLE, 0)?;
            Ok(Reason::RejectedUnreachable)
        }
        Protocol::Icmp => Err(Reason::Internal),
    }
}

/// Answers a TCP segment of mode `nat` that belongs to no flow, as the backend would that knows no connection either. It counts for
/// the service.
#[inline(always)]
pub(crate) fn no_flow<A: Reply>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let (Ok(reason) | Err(reason)) = reset_unknown(packet, scratch);
    counters::count_service_drop(scratch.service.id, reason);
    NextStage::Done(reason)
}

#[inline(always)]
fn reset_unknown<A: Reply>(packet: &Packet, scratch: &Scratch<A>) -> Result<Reason, Reason> {
    let Scratch { ip, tuple, .. } = scratch;
    if !tuple.src.is_host() || A::is_fragment(packet, ip) {
        return Err(Reason::NoFlow);
    }
    reset::send(packet, ip, tuple).map_err(|reason| {
        if reason == Reason::NoBackend {
            Reason::NoFlow
        } else {
            reason
        }
    })?;
    Ok(Reason::NoFlowReset)
}
