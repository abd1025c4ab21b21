//! Writing other addresses and ports into a packet.

use lb_common::{csum, flow::NatFlow, reason::Reason};
use network_types::{tcp::TcpHdr, udp::UdpHdr};

use crate::{
    family::Family,
    fragment::record,
    header::{Ip, Protocol},
    packet::Packet,
    scratch::FragmentScratch,
};

/// Refuses a packet that must not be routed further.
#[inline(always)]
pub(crate) fn may_route(ip: &Ip) -> Result<(), Reason> {
    if ip.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    Ok(())
}

/// What becomes of the TTL or hop limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TtlAction {
    /// It becomes less by one: we route the packet.
    Decrement,
    /// Nothing: the kernel routes it.
    Keep,
}

/// Rewrites a TCP or UDP packet to its flow's addresses and ports. Writes either all of them or nothing.
#[inline(always)]
pub(crate) fn translate<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    fragments: &mut FragmentScratch<A>,
    ttl: TtlAction,
) -> Result<(), Reason> {
    if A::is_fragment(packet, ip) {
        record::translated(packet, fragments, flow);
    }
    // SAFETY: in use until the end of this function, which touches no other bytes but those behind it.
    let header = unsafe { A::header(packet, ip.header) }.ok_or(Reason::Internal)?;
    match ip.protocol {
        Protocol::Tcp => {
            // SAFETY: behind the IP header, and in use within these braces.
            let tcp: &mut TcpHdr = unsafe { packet.at(ip.payload) }.ok_or(Reason::Internal)?;
            tcp.source = flow.src_port.0.to_ne_bytes();
            tcp.dest = flow.dst_port.0.to_ne_bytes();
            tcp.check = csum::update(u16::from_ne_bytes(tcp.check), flow.l4_delta).to_ne_bytes();
        }
        Protocol::Udp => {
            // SAFETY: behind the IP header, and in use within these braces.
            let udp: &mut UdpHdr = unsafe { packet.at(ip.payload) }.ok_or(Reason::Internal)?;
            udp.src = flow.src_port.0.to_ne_bytes();
            udp.dst = flow.dst_port.0.to_ne_bytes();
            udp.check = csum::update_udp(u16::from_ne_bytes(udp.check), flow.l4_delta).to_ne_bytes();
        }
        Protocol::Icmp => return Err(Reason::Internal),
    }
    set_addresses(header, flow.src, flow.dst, flow.ip_delta, ttl);
    Ok(())
}

/// Writes addresses whose change is `delta`, as [`Family::header_delta`] gives it.
#[inline(always)]
pub(crate) fn set_addresses<A: Family>(header: &mut A::Header, src: A, dst: A, delta: u16, ttl: TtlAction) {
    match ttl {
        TtlAction::Decrement => A::route_to(header, src, dst, delta),
        TtlAction::Keep => A::set_addresses(header, src, dst, delta),
    }
}
