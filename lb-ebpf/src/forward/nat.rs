//! Full NAT: both addresses and both ports are the flow's, in each direction. It routes, so it decrements the TTL.

use lb_common::{csum, flow::NatFlow, reason::Reason};
use network_types::{tcp::TcpHdr, udp::UdpHdr};

use crate::{
    family::Family,
    fragment,
    next_hop::NextHop,
    packet::Packet,
    parse::{Ip, Protocol},
    verdict::Verdict,
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
pub(crate) enum Hops {
    /// It becomes less by one: we route the packet.
    OneLess,
    /// Nothing: the kernel routes it.
    Same,
}

/// Rewrites a TCP or UDP packet to what its flow says, and sends it.
#[inline(always)]
pub(crate) fn translate<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    next_hop: &NextHop,
) -> Result<Verdict, Reason> {
    rewrite(packet, ip, flow, Hops::OneLess)?;
    next_hop.send(packet)
}

/// Rewrites a TCP or UDP packet to what its flow says. Nothing is written unless all can be.
#[inline(always)]
pub(crate) fn rewrite<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    hops: Hops,
) -> Result<(), Reason> {
    if A::is_fragment(packet, ip) {
        fragment::record_translated(packet, flow);
    }
    let header = A::header(packet, ip.header).ok_or(Reason::Internal)?;
    match ip.protocol {
        Protocol::Tcp => {
            let tcp: &mut TcpHdr = packet.at(ip.payload).ok_or(Reason::Internal)?;
            tcp.source = flow.src_port.0.to_ne_bytes();
            tcp.dest = flow.dst_port.0.to_ne_bytes();
            tcp.check = csum::update(u16::from_ne_bytes(tcp.check), flow.l4_delta).to_ne_bytes();
        }
        Protocol::Udp => {
            let udp: &mut UdpHdr = packet.at(ip.payload).ok_or(Reason::Internal)?;
            udp.src = flow.src_port.0.to_ne_bytes();
            udp.dst = flow.dst_port.0.to_ne_bytes();
            udp.check = csum::update_udp(u16::from_ne_bytes(udp.check), flow.l4_delta).to_ne_bytes();
        }
        Protocol::Icmp => return Err(Reason::Internal),
    }
    set_addresses(header, flow.src, flow.dst, flow.ip_delta, hops);
    Ok(())
}

/// Writes addresses whose change is `delta`, as [`Family::header_delta`] gives it.
#[inline(always)]
pub(crate) fn set_addresses<A: Family>(header: &mut A::Header, src: A, dst: A, delta: u16, hops: Hops) {
    match hops {
        Hops::OneLess => A::route_to(header, src, dst, delta),
        Hops::Same => A::set_addresses(header, src, dst, delta),
    }
}
