//! From a frame to its service, and to the stage that goes on with it.

use lb_common::{
    addr::NetPort,
    flow::Tuple,
    reason::Reason,
    service::{TCP, UDP},
    settings::Settings,
    vlan::Tags,
};

use crate::{
    family::Family,
    fast_path,
    header::{Ip, Protocol},
    lookup,
    maps::tables,
    next_stage::NextStage,
    order,
    packet::Packet,
    scratch::Scratch,
    transport,
};

/// Reads header and tuple, and looks the service up. Leaves all of them in the scratch.
#[inline(always)]
pub(crate) fn read<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Ip, NextStage> {
    let ip = scratch.forget_header(A::parse(packet)?);
    let protocol = match ip.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return Err(NextStage::Icmp),
    };
    transport::tuple(packet, &ip, protocol, &mut scratch.tuple)?;
    lookup::find(scratch);
    Ok(ip)
}

/// The stage of a TCP or UDP packet that [`read`] has read.
#[inline(always)]
pub(crate) fn next<A: Family>(
    packet: &Packet,
    ip: &Ip,
    scratch: &mut Scratch<A>,
) -> Result<NextStage, NextStage> {
    if scratch.service.is_some() {
        return Ok(next_of_service(scratch));
    }
    next_of_unmatched(packet, ip, tables::settings()?, scratch)
}

/// The stage of a TCP or UDP packet to the service in the scratch.
#[inline(always)]
pub(crate) fn next_of_service<A: Family>(scratch: &mut Scratch<A>) -> NextStage {
    scratch.select_none();
    order::of_service(&scratch.service)
}

/// The stage of a TCP or UDP packet for no service of one address.
#[inline(always)]
pub(crate) fn next_of_unmatched<A: Family>(
    packet: &Packet,
    ip: &Ip,
    settings: &Settings,
    scratch: &Scratch<A>,
) -> Result<NextStage, NextStage> {
    let next = order::of_none(settings, scratch.tuple.dst_port, || {
        may_be_reply(settings.flags, &scratch.tuple)
    });
    next.ok_or_else(|| unmatched::<A>(packet, ip))
}

/// The stage of a packet of the service in the scratch.
#[inline(always)]
pub(crate) fn next_of_flow<A: Family>(scratch: &mut Scratch<A>) -> NextStage {
    scratch.select_none();
    order::of_flow(&scratch.service)
}

/// As [`next_of_flow`], behind the fast path if the packet may take it: whatever [`read`] has read comes here, too.
#[inline(always)]
pub(crate) fn forward_or_next<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let ip = scratch.ip;
    let next = if packet.tags == Tags::NONE && !A::is_fragment(packet, &ip) {
        fast_path::forward(packet, &ip, scratch)
    } else {
        None
    };
    next.unwrap_or_else(|| next_of_flow(scratch))
}

/// The stage of a TCP or UDP packet for no service: it may be a reply.
#[inline(always)]
pub(crate) fn next_of_none<A: Family>(
    packet: &Packet,
    ip: &Ip,
    settings: &Settings,
    scratch: &Scratch<A>,
) -> Result<NextStage, NextStage> {
    let next = order::after_prefixes(settings, scratch.tuple.dst_port, || {
        may_be_reply(settings.flags, &scratch.tuple)
    });
    next.ok_or_else(|| unmatched::<A>(packet, ip))
}

/// A TCP or UDP packet for no service and no flow. The stage of fragments remembers a first one.
#[inline(always)]
pub(crate) fn unmatched<A: Family>(packet: &Packet, ip: &Ip) -> NextStage {
    if A::is_fragment(packet, ip) {
        NextStage::Fragment
    } else {
        Reason::NotOurs.into()
    }
}

/// Whether a packet may come from a backend of mode `dnat`.
#[inline(always)]
fn may_be_reply<A: Family>(flags: u32, tuple: &Tuple<A>) -> bool {
    order::may_be_reply(flags, |wildcard| {
        let port = if wildcard { NetPort(0) } else { tuple.src_port };
        A::may_be_reply(tuple.src, port, tuple.protocol)
    })
}
