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

/// Rewrites a TCP or UDP packet to what its flow says, and sends it. Nothing is written unless all can be.
#[inline(always)]
pub(crate) fn translate<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    next_hop: &NextHop,
) -> Result<Verdict, Reason> {
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
            udp.check = udp_checksum(u16::from_ne_bytes(udp.check), flow.l4_delta).to_ne_bytes();
        }
        Protocol::Icmp => return Err(Reason::Internal),
    }
    A::route_to(header, flow.src, flow.dst, flow.ip_delta);
    next_hop.send(packet)
}

/// A UDP checksum after a change: 0 says that there is none and stays; one that comes out as 0 is sent as its other
/// form (RFC 768).
#[inline(always)]
pub(crate) fn udp_checksum(field: u16, delta: u16) -> u16 {
    if field == 0 {
        return 0;
    }
    match csum::update(field, delta) {
        0 => u16::MAX,
        other => other,
    }
}
