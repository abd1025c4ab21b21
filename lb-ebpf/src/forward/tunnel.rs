//! Modes `ipip` and `gue`: the packet as it came, within an outer packet to the backend.
//!
//! Outer headers follow RFC 2003 and RFC 2473. DSCP and ECN are the packet's own (RFC 2983's uniform model, RFC 6040
//! normal mode). DF is always set: the sender of a packet that does not fit gets an ICMP error, and no fragments are sent. The
//! flow's hash is in the flow label, in GUE's source port, and in the source address if that may be any of a prefix.

use core::cell::Cell;

use lb_common::{
    backend::{Backend, IPV6},
    csum::Sum,
    reason::Reason,
    tunnel::{self, HOP_LIMIT, IPV4_IN_IP, IPV6_IN_IP, UDP_LEN, V4_LEN, V6_LEN},
};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::Ipv4Hdr,
};

use crate::{
    family::Family,
    header::{Ip, Protocol},
    maps::tables,
    packet::Packet,
    scratch::NextHop,
    verdict::Verdict,
};
use lb_wire::Frame as _;

/// Protocol number of UDP, of which outer headers are written in words.
const UDP: u8 = 17;

/// The headers put before a packet. Copied from the packet before it moves.
#[derive(Clone, Copy)]
struct Outer {
    /// Bytes of the packet.
    len: usize,
    /// Its DSCP and ECN.
    traffic_class: u8,
    /// Its protocol number in an IP header.
    protocol: u8,
    /// Whether a UDP header comes between.
    gue: bool,
}

/// Puts another packet, to the backend, around a packet.
#[inline(always)]
pub(crate) fn put<A: Family>(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    gue: bool,
    hash: u32,
) -> Result<(), Reason> {
    let outer = Outer {
        len: ip.packet_len(),
        traffic_class: traffic_class::<A>(packet, ip)?,
        protocol: if A::IS_V6 { IPV6_IN_IP } else { IPV4_IN_IP },
        gue,
    };
    if backend.has(IPV6) {
        let sum = if gue { packet_sum::<A>(packet, ip) } else { None };
        outer_v6(packet, backend, outer, || hash, sum)
    } else {
        outer_v4(packet, backend, outer, || hash)
    }
}

/// [`put`], and sending it, where the daemon knows the way, which has no VLANs; within the packet's own family, and without GUE's checksum.
#[inline(always)]
pub(crate) fn send_plain<A: Family>(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    gue: bool,
    hash: &Cell<u32>,
) -> Result<Verdict, Reason> {
    let outer = Outer {
        len: ip.packet_len(),
        traffic_class: traffic_class::<A>(packet, ip)?,
        protocol: if A::IS_V6 { IPV6_IN_IP } else { IPV4_IN_IP },
        gue,
    };
    if A::IS_V6 {
        outer_v6(packet, backend, outer, || hash.get(), None)?;
    } else {
        outer_v4(packet, backend, outer, || hash.get())?;
    }
    NextHop::resolved(backend).send_untagged(packet)
}

/// DSCP and ECN of a packet.
#[inline(always)]
fn traffic_class<A: Family>(packet: &Packet, ip: &Ip) -> Result<u8, Reason> {
    let [first, second]: [u8; 2] = packet.read(ip.header).ok_or(Reason::Internal)?;
    Ok(if A::IS_V6 {
        first << 4 | second >> 4
    } else {
        second
    })
}

#[inline(always)]
fn ether_type(packet: &Packet, kind: EtherType) -> Result<(), Reason> {
    packet
        .set_half(EthHdr::LEN - 2, kind as u16)
        .ok_or(Reason::Internal)
}

/// A 32-bit word of two halves, given as numbers, as it stands in a packet.
#[inline(always)]
const fn word(high: u16, low: u16) -> u32 {
    ((high as u32) << 16 | low as u32).to_be()
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an IP packet's length has 16 bits"
)]
fn outer_v4(packet: &Packet, backend: &Backend, outer: Outer, hash: impl Fn() -> u32) -> Result<(), Reason> {
    const DF: u16 = 1 << 14;
    let overhead = tunnel::overhead(false, outer.gue);
    packet.grow(overhead as i32).ok_or(Reason::NoHeadroom)?;
    ether_type(packet, EtherType::Ipv4)?;
    let len = (outer.len + overhead) as u16;
    let protocol = if outer.gue { UDP } else { outer.protocol };
    let mut words = [
        word(0x4500 | u16::from(outer.traffic_class), len),
        word(0, DF),
        word(u16::from(HOP_LIMIT) << 8 | u16::from(protocol), 0),
        backend.outer_source_v4(hash()).0,
        backend.address.v4().0,
    ];
    let sum = words.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word)).fold();
    // The checksum is the lower half of its word in network byte order, and the sum is of words as they stand.
    words[2] |= word(0, u16::from_be(!sum));
    packet.put(EthHdr::LEN, words).ok_or(Reason::Internal)?;
    if outer.gue {
        // Over IPv4 a checksum of zero means none; the packet within has its own.
        let udp = udp_words(outer, hash(), gue_port()?, 0);
        packet.put(EthHdr::LEN + V4_LEN, udp).ok_or(Reason::Internal)?;
    }
    Ok(())
}

/// `sum` is the packet's sum, for GUE's checksum; without it there is no checksum, as RFC 6935 allows tunnels.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an IP packet's length has 16 bits"
)]
fn outer_v6(
    packet: &Packet,
    backend: &Backend,
    outer: Outer,
    hash: impl Fn() -> u32,
    sum: Option<Sum>,
) -> Result<(), Reason> {
    let overhead = tunnel::overhead(true, outer.gue);
    packet.grow(overhead as i32).ok_or(Reason::NoHeadroom)?;
    ether_type(packet, EtherType::Ipv6)?;
    let payload = (outer.len + overhead - V6_LEN) as u16;
    let protocol = if outer.gue { UDP } else { outer.protocol };
    let first = 6 << 28 | u32::from(outer.traffic_class) << 20 | tunnel::flow_label(hash());
    let [s0, s1, s2, s3] = backend.source.v6().0;
    let [d0, d1, d2, d3] = backend.address.v6().0;
    let words = [
        first.to_be(),
        word(payload, u16::from(protocol) << 8 | u16::from(HOP_LIMIT)),
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ];
    packet.put(EthHdr::LEN, words).ok_or(Reason::Internal)?;
    // Afterwards, and not as one of the words: the stack has no room for more of them.
    let entropy = backend.source_entropy(hash());
    if entropy != 0 {
        const LAST_OF_SOURCE: usize = EthHdr::LEN + 5 * size_of::<u32>();
        let [.., last] = backend.source.v6().0;
        packet
            .put(LAST_OF_SOURCE, [last | entropy])
            .ok_or(Reason::Internal)?;
    }
    if outer.gue {
        let port = gue_port()?;
        let checksum = sum.map_or(0, |sum| {
            let addresses = words[2..].iter().fold(sum, |sum, word| sum.add32(*word));
            let [ports, length] = udp_words(outer, hash(), port, 0);
            // The bits are not set in the word that has been summed up.
            let pseudo = addresses
                .add32(entropy)
                .add(payload.to_be())
                .add(u16::from(UDP).to_be());
            match !pseudo.add32(ports).add32(length).fold() {
                0 => u16::MAX,
                other => other,
            }
        });
        let udp = udp_words(outer, hash(), port, u16::from_be(checksum));
        packet.put(EthHdr::LEN + V6_LEN, udp).ok_or(Reason::Internal)?;
    }
    Ok(())
}

/// The port that GUE packets go to. Read where it is written: nothing has to be kept on the stack until then.
#[inline(always)]
fn gue_port() -> Result<u16, Reason> {
    tables::settings().map(|settings| settings.gue_port)
}

/// GUE's UDP header with this checksum.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an IP packet's length has 16 bits"
)]
fn udp_words(outer: Outer, hash: u32, port: u16, checksum: u16) -> [u32; 2] {
    let length = (outer.len + UDP_LEN) as u16;
    [word(tunnel::source_port(hash), port), word(length, checksum)]
}

/// The sum of the whole packet, derived from its headers; `None` if they do not have it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an IP packet's length has 16 bits"
)]
fn packet_sum<A: Family>(packet: &Packet, ip: &Ip) -> Option<Sum> {
    if A::is_fragment(packet, ip) {
        return None;
    }
    let protocol = match ip.protocol {
        Protocol::Tcp => lb_common::service::TCP,
        Protocol::Udp => {
            let [.., len_high, len_low, high, low]: [u8; 8] = packet.read(ip.payload)?;
            let whole = usize::from(u16::from_be_bytes([len_high, len_low])) == ip.payload_len();
            if [high, low] == [0; 2] || !whole {
                return None;
            }
            UDP
        }
        Protocol::Icmp => return None,
    };
    let len = ip.payload_len() as u16;
    if A::IS_V6 {
        // With extension headers the next header is another than the pseudo header's.
        if ip.payload != ip.header + V6_LEN {
            return None;
        }
        let [a, b, c, d, _, _, next, hops]: [u8; 8] = packet.read(ip.header)?;
        let first = Sum::ZERO
            .add32(u32::from_ne_bytes([a, b, c, d]))
            .add(u16::from_ne_bytes([next, hops]));
        // The payload length stands in both headers, and so do the addresses.
        Some(tunnel::packet_sum(
            first.add(len.to_be()),
            Sum::ZERO,
            protocol,
            len,
        ))
    } else {
        let header: Ipv4Hdr = packet.read(ip.header)?;
        let addresses = Sum::ZERO
            .add32(u32::from_ne_bytes(header.src_addr))
            .add32(u32::from_ne_bytes(header.dst_addr));
        Some(tunnel::packet_sum(Sum::ZERO, addresses, protocol, len))
    }
}
