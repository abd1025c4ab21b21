//! Packets of flows in the NAT flow table, and packets that may begin one.

use lb_common::{backend::Backend, flow::REPLY, service::QUIC};

use super::{
    progress::{self, Course},
    track::{self, Entry},
};
use crate::{
    check_packet::Checked,
    classify,
    family::Family,
    forward::rewrite::{self, TtlAction},
    guard,
    maps::{counters, tables},
    next_stage::NextStage,
    order::{self, Checks as _},
    packet::Packet,
    quic,
    scratch::{NewFlow, NextHop, Scratch},
    select, transport,
    verdict::{self, Verdict},
};

/// Sends a packet of a known flow to the flow's other end.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    match try_stage(packet, scratch) {
        Ok(next) | Err(next) => next,
    }
}

#[inline(always)]
fn try_stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<NextStage, NextStage> {
    let is_service = scratch.service.is_some();
    let entry = track::find(&scratch.tuple, &mut scratch.flow);
    // Also where a service stands on a source NAT address: a recorded reply goes before.
    if let Some(entry) = entry
        && scratch.flow.direction == REPLY
    {
        scratch.drop_counts_for = scratch.flow.service;
        return Ok(verdict::next(from_backend(packet, scratch, entry)));
    }
    if !is_service {
        let next = order::without_flow(tables::has_dnat());
        return Err(next.unwrap_or_else(|| classify::unmatched::<A>(packet, &scratch.ip)));
    }
    // A flow stands under the tuple, whether it is this packet's or not.
    scratch.replaces = u32::from(entry.is_some());
    let entry = entry.filter(|_| !(scratch.service.has(QUIC) && quic::cid_overrides_flow(scratch)));
    if entry.is_none() && order::is_mixed(&scratch.service) {
        scratch.drop_counts_for = scratch.service.id;
        let Scratch {
            ip,
            service,
            tuple,
            cid_backend,
            ..
        } = scratch;
        let mut checked = Checked::<_, false>::new(packet, ip, service, tuple, false);
        order::check_mixed(&mut checked)?;
        let is_syn = checked.is_syn();
        let choice = select::select_backend(service, tuple, is_syn, *cid_backend)?;
        if !select::translates::<A>(choice.backend) {
            return Ok(NextStage::SlowPath);
        }
    }
    scratch.drop_counts_for = scratch.service.id;
    Ok(verdict::next(from_client(packet, scratch, entry)))
}

/// A packet to a service: to its flow's backend, or to the stage that begins a flow.
#[inline(always)]
fn from_client<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    entry: Option<Entry<A>>,
) -> Result<Verdict, NextStage> {
    let Scratch {
        ip, service, tuple, ..
    } = &*scratch;
    let mut checked = Checked::<_, false>::new(packet, ip, service, tuple, false);
    order::check_nat(&mut checked)?;
    let flags = checked.flags;
    if let Some(entry) = entry
        && let Some(owner) = select::living_owner(&scratch.flow)
    {
        let course = progress::from_client(packet, scratch, flags);
        if course != Course::Replaces {
            let reopens = course == Course::Reopens;
            if reopens {
                guard::admit_flow(&scratch.service, scratch.tuple.src)?;
            }
            entry.touch(&mut scratch.flow);
            track::follow_client(packet, scratch)?;
            return forward(packet, scratch, owner, reopens, false);
        }
    }
    Err(NextStage::NewFlow)
}

/// Counts and sends a client's packet to the backend of its known or new flow.
#[inline(always)]
pub(super) fn forward<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    backend: &Backend,
    new_flow: bool,
    begins: bool,
) -> Result<Verdict, NextStage> {
    let Scratch {
        ip,
        flow: known,
        new_flow: NewFlow { forward, .. },
        exit,
        fragments,
        ..
    } = scratch;
    let flow = if begins { forward } else { known };
    let next_hop = NextHop::towards(packet, ip, backend, &flow.src, &flow.dst, exit)?;
    counters::count_forward(flow.service, flow.backend, u64::from(packet.frame_len), new_flow);
    rewrite::translate(packet, ip, flow, fragments, TtlAction::Decrement)?;
    Ok(next_hop.send(packet)?)
}

/// A backend's packet: back to the client, the way the client's packets come.
#[inline(always)]
fn from_backend<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    entry: Entry<A>,
) -> Result<Verdict, NextStage> {
    let flags = transport::check::<A>(packet, &scratch.ip)?;
    rewrite::may_route(&scratch.ip)?;
    progress::from_backend(packet, scratch, flags);
    entry.touch(&mut scratch.flow);
    let Scratch {
        ip, flow, fragments, ..
    } = scratch;
    counters::count_reply(flow.service, flow.backend, u64::from(packet.frame_len));
    rewrite::translate(packet, ip, flow, fragments, TtlAction::Decrement)?;
    Ok(NextHop::back(&flow.last_hop).send(packet)?)
}
