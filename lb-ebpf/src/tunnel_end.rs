//! The end of tunnels of modes `ipip` and `gue`: takes the outer header off. GUE is taken in both of its variants.

use lb_common::{
    addr::{NetAddr, NetV4, NetV6},
    csum::{self, Sum},
    decap::{self, Carries, Outcome, Tables, V4, V6},
    tunnel::{self, IPV4_IN_IP, IPV6_IN_IP, UDP_LEN},
};
use lb_wire::Frame as _;
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::packet::{MACS_LEN, Packet, Walks};

/// Protocol number of UDP.
const UDP: u8 = 17;

/// An outer IP header.
struct Outer {
    /// As its sources are marked.
    family: u8,
    source: NetAddr,
    destination: NetAddr,
    /// DSCP and ECN.
    class: u8,
    /// What it carries.
    protocol: u8,
    /// Where that begins in the frame, and where the packet ends.
    payload: usize,
    end: usize,
}

/// Takes the outer headers off a packet that came through a tunnel to one of this machine's addresses, from a balancer.
///
/// # Errors
/// Why the packet is as it came; after [`Outcome::Failed`], it may lack its headers.
#[inline(always)]
pub fn open<W: Walks>(packet: &Packet<W>, tables: &impl Tables) -> Result<(), Outcome> {
    let ethernet: EthHdr = packet.read(0).ok_or(Outcome::Passed)?;
    let outer = if ethernet.ether_type == EtherType::Ipv4 as u16 {
        outer_v4(packet)
    } else if ethernet.ether_type == EtherType::Ipv6 as u16 {
        outer_v6(packet)
    } else {
        None
    };
    let outer = outer.ok_or(Outcome::Passed)?;
    let is_udp = outer.protocol == UDP;
    let carries = if is_udp {
        let udp: UdpHdr = packet.read(outer.payload).ok_or(Outcome::Passed)?;
        Carries::Udp(u16::from_be_bytes(udp.dst))
    } else {
        Carries::Protocol(outer.protocol)
    };
    decap::admit(tables, carries, outer.family, &outer.source, &outer.destination)?;
    let (inner, protocol) = if is_udp {
        gue(packet, outer.payload + UDP_LEN).ok_or(Outcome::Malformed)?
    } else {
        (outer.payload, outer.protocol)
    };
    let kind = if protocol == IPV6_IN_IP {
        inner_v6(packet, inner, &outer)?;
        EtherType::Ipv6
    } else {
        inner_v4(packet, inner, &outer)?;
        EtherType::Ipv4
    };
    // The frame's addresses go with the packet.
    let macs = packet.macs().ok_or(Outcome::Failed)?;
    let taken = inner - EthHdr::LEN;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "headers of some dozen bytes"
    )]
    let taken = taken as i32;
    packet.grow(-taken).ok_or(Outcome::Failed)?;
    packet.set_macs(macs).ok_or(Outcome::Failed)?;
    packet.set_half(MACS_LEN, kind as u16).ok_or(Outcome::Failed)?;
    Ok(())
}

/// The outer IPv4 header; `None` for another packet, or a fragment, which the kernel reassembles first.
#[inline(always)]
fn outer_v4<W: Walks>(packet: &Packet<W>) -> Option<Outer> {
    let header: Ipv4Hdr = packet.read(EthHdr::LEN)?;
    let whole = u16::from_be_bytes(header.frags) & 0x3fff == 0;
    if header.vihl != 0x45 || !whole {
        return None;
    }
    Some(Outer {
        family: V4,
        source: mapped(header.src_addr),
        destination: mapped(header.dst_addr),
        class: header.tos,
        protocol: header.proto,
        payload: EthHdr::LEN + Ipv4Hdr::LEN,
        end: EthHdr::LEN + u16::from_be_bytes(header.tot_len) as usize,
    })
}

/// The outer IPv6 header; `None` for another packet. The kernel handles extension headers.
#[inline(always)]
fn outer_v6<W: Walks>(packet: &Packet<W>) -> Option<Outer> {
    let header: Ipv6Hdr = packet.read(EthHdr::LEN)?;
    let [first, second, ..] = header.vcf;
    if first >> 4 != 6 {
        return None;
    }
    Some(Outer {
        family: V6,
        source: NetAddr(words(header.src_addr)),
        destination: NetAddr(words(header.dst_addr)),
        class: first << 4 | second >> 4,
        protocol: header.next_hdr,
        payload: EthHdr::LEN + Ipv6Hdr::LEN,
        end: EthHdr::LEN + Ipv6Hdr::LEN + u16::from_be_bytes(header.payload_len) as usize,
    })
}

#[inline(always)]
fn mapped(address: [u8; 4]) -> NetAddr {
    NetAddr::from_v4(NetV4(u32::from_ne_bytes(address)))
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    NetV6([[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)).0
}

/// Where the packet begins in the payload of a GUE packet, and its protocol number. A control message is none.
#[inline(always)]
fn gue<W: Walks>(packet: &Packet<W>, payload: usize) -> Option<(usize, u8)> {
    const CONTROL: u8 = 1 << 5;
    let [first, protocol]: [u8; 2] = packet.read(payload)?;
    match first >> 4 {
        4 => Some((payload, IPV4_IN_IP)),
        6 => Some((payload, IPV6_IN_IP)),
        // Variant 0: a header, with optional words.
        0 | 1 if first & CONTROL == 0 && (protocol == IPV4_IN_IP || protocol == IPV6_IN_IP) => {
            Some((payload + 4 + 4 * (first & 0x1f) as usize, protocol))
        }
        _ => None,
    }
}

#[inline(always)]
fn inner_v4<W: Walks>(packet: &Packet<W>, at: usize, outer: &Outer) -> Result<(), Outcome> {
    // SAFETY: in use until the end of this function, which touches no other bytes.
    let header: &mut Ipv4Hdr = unsafe { packet.at(at) }.ok_or(Outcome::Malformed)?;
    let whole = at + u16::from_be_bytes(header.tot_len) as usize <= outer.end;
    if header.vihl >> 4 != 4 || header.vihl & 0x0f < 5 || !whole {
        return Err(Outcome::Malformed);
    }
    let ecn = ecn(outer.class, header.tos)?;
    if ecn != header.tos & 3 {
        let [old, new] = [header.tos, header.tos & !3 | ecn].map(u16::from).map(u16::to_be);
        header.tos = header.tos & !3 | ecn;
        let delta = Sum::ZERO.sub(old).add(new).fold();
        header.check = csum::update(u16::from_ne_bytes(header.check), delta).to_ne_bytes();
    }
    Ok(())
}

#[inline(always)]
fn inner_v6<W: Walks>(packet: &Packet<W>, at: usize, outer: &Outer) -> Result<(), Outcome> {
    // SAFETY: as in IPv4.
    let header: &mut Ipv6Hdr = unsafe { packet.at(at) }.ok_or(Outcome::Malformed)?;
    let whole = at + Ipv6Hdr::LEN + u16::from_be_bytes(header.payload_len) as usize <= outer.end;
    if header.vcf[0] >> 4 != 6 || !whole {
        return Err(Outcome::Malformed);
    }
    let ecn = ecn(outer.class, header.vcf[1] >> 4)?;
    header.vcf[1] = header.vcf[1] & !0x30 | ecn << 4;
    Ok(())
}

/// The ECN field that a packet leaves with.
#[inline(always)]
fn ecn(outer: u8, inner: u8) -> Result<u8, Outcome> {
    tunnel::decapsulated_ecn(outer & 3, inner & 3).ok_or(Outcome::Congestion)
}
