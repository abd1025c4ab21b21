//! Fragments that follow a first one.

use lb_common::{
    backend::{ALIVE, Backend, IN_USE},
    csum::Sum,
    fragment::{AS_IS, Datagram, FORWARD, NOT_OURS, REPLY, ROUTED, Went},
    limits::FRAGMENT_SECS,
    reason::Reason,
    service::ServiceId,
};
use network_types::ip::IpProto;

use super::header::{Fragmented, begin, set_key};
use crate::{
    clock::now_secs,
    dnat::route,
    forward::{
        direct,
        rewrite::{self, TtlAction},
    },
    maps::{counters, tables},
    next_stage::NextStage,
    packet::Packet,
    scratch::{Exit, Fragment, FragmentScratch, NextHop, Scratch},
    verdict::{self, Verdict},
};

/// Sends a fragment where the first one of its datagram went. One for no service passes.
#[inline(always)]
pub(crate) fn stage<A: Fragmented>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    match follow(packet, scratch) {
        Ok(verdict) => verdict::next(Ok(verdict)),
        // No message goes to the sender of one that is too big: it would quote no ports.
        Err(next) => next.reason().into(),
    }
}

#[inline(always)]
fn follow<A: Fragmented>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Verdict, NextStage> {
    let Scratch { fragments, exit, .. } = scratch;
    A::read(packet, &mut fragments.fragment)?;
    set_key(packet, &fragments.fragment, &mut fragments.datagram).ok_or(Reason::Internal)?;
    if fragments.fragment.first {
        // Not for a service. Without this record, later fragments to an address of a service would count as lost.
        if service_on(&fragments.fragment, &fragments.datagram).is_some() {
            begin(packet, fragments, NOT_OURS);
            A::write_fragment(&fragments.datagram, &fragments.went);
        }
        return Err(Reason::Fragment.into());
    }
    let FragmentScratch {
        fragment: part,
        datagram,
        went,
        ..
    } = fragments;
    if !A::find_fragment(datagram, went) || now_secs().wrapping_sub(went.seen) > FRAGMENT_SECS {
        let service = service_on(part, datagram).ok_or(Reason::Fragment)?;
        scratch.drop_counts_for = service;
        return Err(Reason::FragmentAlone.into());
    }
    scratch.drop_counts_for = went.service;
    match went.kind {
        AS_IS => pass_on(packet, part, went, exit)?,
        ROUTED => reply(packet, part, datagram, went, exit)?,
        FORWARD | REPLY => translate(packet, part, datagram, went, exit)?,
        _ => return Err(Reason::Fragment.into()),
    }
    Ok(exit.leave(packet)?)
}

/// The service that a fragment may be for: one of its destination and its protocol. What follows extension headers in IPv6 is
/// known of the first fragment alone, so it may be for any.
#[inline(always)]
fn service_on<A: Fragmented>(part: &Fragment, datagram: &Datagram<A>) -> Option<ServiceId> {
    let services = tables::services_on(&datagram.dst.to_record());
    if A::IS_V6 && part.carries == IpProto::Ipv6Opts as u8 {
        return services.any();
    }
    services.of(part.carries)
}

#[inline(always)]
fn pass_on<A: Fragmented>(
    packet: &Packet,
    part: &Fragment,
    went: &Went<A>,
    exit: &mut Exit,
) -> Result<(), NextStage> {
    direct::prepare::<A>(packet, &part.ip, owner(went)?, went.hash, exit)?;
    counters::count_forward(went.service, went.backend, u64::from(packet.frame_len), false);
    Ok(())
}

/// The backend that the first fragment went to, unless it is dead since, or its number is in other hands.
#[inline(always)]
fn owner<A>(went: &Went<A>) -> Result<&'static Backend, Reason> {
    match tables::backend(went.backend)? {
        owner if owner.has(IN_USE | ALIVE) && owner.generation == went.generation => Ok(owner),
        _ => Err(Reason::NoBackend),
    }
}

#[inline(always)]
fn translate<A: Fragmented>(
    packet: &Packet,
    part: &Fragment,
    from: &Datagram<A>,
    went: &Went<A>,
    exit: &mut Exit,
) -> Result<(), NextStage> {
    rewrite::may_route(&part.ip)?;
    let bytes = u64::from(packet.frame_len);
    exit.hop = if went.kind == FORWARD {
        let next_hop = NextHop::towards(packet, &part.ip, owner(went)?, &went.src, &went.dst, exit)?;
        counters::count_forward(went.service, went.backend, bytes, false);
        next_hop
    } else {
        counters::count_reply(went.service, went.backend, bytes);
        NextHop::back(&went.last_hop)
    };
    Ok(write(packet, part, from, went, TtlAction::Decrement)?)
}

/// A reply in mode `dnat`, as [`crate::forward::dnat`] sends them.
#[inline(always)]
fn reply<A: Fragmented>(
    packet: &Packet,
    part: &Fragment,
    from: &Datagram<A>,
    went: &Went<A>,
    exit: &mut Exit,
) -> Result<(), NextStage> {
    let by_kernel = route::leaves_by_kernel(exit, packet, &part.ip, &went.src, &went.dst)?;
    rewrite::may_route(&part.ip)?;
    counters::count_reply(went.service, went.backend, u64::from(packet.frame_len));
    if by_kernel {
        write(packet, part, from, went, TtlAction::Keep)?;
        return Err(Reason::ReplyByKernel.into());
    }
    exit.hop = exit.next_hop(packet);
    Ok(write(packet, part, from, went, TtlAction::Decrement)?)
}

/// Writes the addresses and the identification of the first one.
#[inline(always)]
fn write<A: Fragmented>(
    packet: &Packet,
    part: &Fragment,
    from: &Datagram<A>,
    went: &Went<A>,
    ttl: TtlAction,
) -> Result<(), Reason> {
    A::set_id(packet, part, went.id).ok_or(Reason::Internal)?;
    let sum = from.dst.take_from(from.src.take_from(Sum::ZERO));
    let delta = A::header_delta(went.dst.add_to(went.src.add_to(sum)));
    // SAFETY: in use until the end of this function, which touches no other bytes.
    let header = unsafe { A::header(packet, part.ip.header) }.ok_or(Reason::Internal)?;
    rewrite::set_addresses::<A>(header, went.src, went.dst, delta, ttl);
    Ok(())
}
