//! From a frame to its service, and to the stage that goes on with it.

use lb_common::{
    addr::NetPort,
    backend::BackendId,
    flow::Tuple,
    reason::Reason,
    service::{QUIC, SHARES_ADDRESS, TCP, TRANSLATES, UDP},
    settings::{HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
};

use crate::{
    family::Family,
    header::{Ip, Protocol},
    lookup,
    maps::tables,
    next_stage::NextStage,
    packet::Packet,
    scratch::Scratch,
    transport,
};

/// Reads header and tuple, and looks the service up. Leaves all but the header in the scratch; before the stage of ICMP, also
/// the header.
#[inline(always)]
pub(crate) fn read<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Ip, NextStage> {
    let ip = A::parse(packet)?;
    let protocol = match ip.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => {
            scratch.ip = ip;
            return Err(NextStage::Icmp);
        }
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
    if scratch.service.has(SHARES_ADDRESS) {
        scratch.ip = *ip;
        return Ok(NextStage::HostSocket);
    }
    if scratch.service.is_some() {
        scratch.ip = *ip;
        return Ok(next_of_flow(scratch));
    }
    let settings = tables::settings()?;
    // Most packets that are not ours.
    if !is_reply_port(settings, scratch.tuple.dst_port) && settings.flags & (HAS_DNAT | HAS_PREFIX) == 0 {
        return Err(unmatched::<A>(packet, ip));
    }
    if settings.flags & HAS_PREFIX != 0 {
        scratch.ip = *ip;
        return Ok(NextStage::Prefix);
    }
    next_of_none(packet, ip, settings, scratch)
}

/// The stage of a packet of the service in the scratch.
#[inline(always)]
pub(crate) fn next_of_flow<A: Family>(scratch: &mut Scratch<A>) -> NextStage {
    scratch.cid_backend = BackendId::NONE;
    if scratch.service.has(QUIC) {
        NextStage::Quic
    } else if scratch.service.has(TRANSLATES) {
        NextStage::Nat
    } else {
        NextStage::SlowPath
    }
}

/// The stage of a TCP or UDP packet for no service: it may be a reply.
#[inline(always)]
pub(crate) fn next_of_none<A: Family>(
    packet: &Packet,
    ip: &Ip,
    settings: &Settings,
    scratch: &mut Scratch<A>,
) -> Result<NextStage, NextStage> {
    let next = if is_reply_port(settings, scratch.tuple.dst_port) {
        NextStage::Nat
    } else if may_be_reply(settings.flags, &scratch.tuple) {
        NextStage::DnatReply
    } else {
        return Err(unmatched::<A>(packet, ip));
    };
    scratch.ip = *ip;
    Ok(next)
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

/// Whether replies of mode `nat` may come to this port. Cheap, and where most packets end that are not ours.
#[inline(always)]
fn is_reply_port(settings: &Settings, port: NetPort) -> bool {
    port.get().wrapping_sub(settings.reply_port_first) < settings.reply_port_count
}

/// Whether a packet may come from a backend of mode `dnat`.
#[inline(always)]
fn may_be_reply<A: Family>(flags: u32, tuple: &Tuple<A>) -> bool {
    flags & HAS_DNAT != 0
        && (A::may_be_reply(tuple.src, tuple.src_port, tuple.protocol)
            || (flags & HAS_WILDCARD != 0 && A::may_be_reply(tuple.src, NetPort(0), tuple.protocol)))
}
