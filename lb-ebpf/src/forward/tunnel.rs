//! Modes `ipip` and `gue`: the packet as it came, within an outer packet to the backend.
//!
//! Outer headers follow RFC 2003 and RFC 2473. DSCP and ECN are the packet's own (RFC 2983's uniform model, RFC 6040
//! normal mode). DF is always set: the sender of a packet that does not fit gets an ICMP error, and no fragments are sent. The
//! flow's hash is in the flow label, in GUE's source port, and in the source address if that may be any of a prefix.

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
    packet::{MACS_LEN, Packet},
    scratch::NextHop,
    start::StartMut,
    verdict::Verdict,
};
use lb_wire::{Frame as _, load::load64};

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
    let outer = Outer::of::<A>(packet, ip, gue)?;
    if backend.has(IPV6) {
        let sum = if gue { packet_sum::<A>(packet, ip) } else { None };
        HeaderV6::new(backend, outer, hash, sum)?.put(packet, backend, None)
    } else {
        HeaderV4::new(backend, outer, hash)?.put(packet, None)
    }
}

/// [`put`], and sending it, where the daemon knows the way, which has no VLANs; within the packet's own family.
#[inline(always)]
pub(crate) fn send_plain<A: Family>(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    gue: bool,
    hash: u32,
) -> Result<Verdict, Reason> {
    let outer = Outer::of::<A>(packet, ip, gue)?;
    let macs = Some(backend);
    if A::IS_V6 {
        let sum = if gue { packet_sum::<A>(packet, ip) } else { None };
        HeaderV6::new(backend, outer, hash, sum)?.put(packet, backend, macs)?;
    } else {
        HeaderV4::new(backend, outer, hash)?.put(packet, macs)?;
    }
    Ok(NextHop::resolved(backend).leave(packet))
}

impl Outer {
    /// Those of a packet.
    #[inline(always)]
    fn of<A: Family>(packet: &Packet, ip: &Ip, gue: bool) -> Result<Self, Reason> {
        Ok(Self {
            len: ip.packet_len(),
            traffic_class: traffic_class::<A>(packet, ip)?,
            protocol: if A::IS_V6 { IPV6_IN_IP } else { IPV4_IN_IP },
            gue,
        })
    }
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

/// A 32-bit word of two halves, given as numbers, as it stands in a packet.
#[inline(always)]
const fn word(high: u16, low: u16) -> u32 {
    ((high as u32) << 16 | low as u32).to_be()
}

/// Two words as one, the first in front.
#[inline(always)]
const fn double([first, second]: [u32; 2]) -> u64 {
    first as u64 | (second as u64) << u32::BITS
}

/// An outer IPv4 header, and perhaps that of UDP, in words as they stand in memory.
struct HeaderV4 {
    /// Up to the checksum, and the source.
    words: [u64; 2],
    destination: u32,
    udp: u64,
    gue: bool,
}

/// Where headers begin, and end.
const V4_END: usize = EthHdr::LEN + V4_LEN;
const V6_END: usize = EthHdr::LEN + V6_LEN;

impl HeaderV4 {
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an IP packet's length has 16 bits"
    )]
    fn new(backend: &Backend, outer: Outer, hash: u32) -> Result<Self, Reason> {
        const DF: u16 = 1 << 14;
        let len = (outer.len + tunnel::overhead(false, outer.gue)) as u16;
        let protocol = if outer.gue { UDP } else { outer.protocol };
        let first = [word(0x4500 | u16::from(outer.traffic_class), len), word(0, DF)];
        let hops = word(u16::from(HOP_LIMIT) << 8 | u16::from(protocol), 0);
        let (source, destination) = (backend.outer_source_v4(hash).0, backend.address.v4().0);
        let words = [first[0], first[1], hops, source, destination];
        let sum = words.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word)).fold();
        // The checksum is the lower half of its word in network byte order, and the sum is of words as they stand.
        let second = [hops | word(0, u16::from_be(!sum)), source];
        // Over IPv4 a checksum of zero means none; the packet within has its own.
        let udp = if outer.gue {
            double(udp_words(outer, hash, gue_port()?, 0))
        } else {
            0
        };
        Ok(Self {
            words: [double(first), double(second)],
            destination,
            udp,
            gue: outer.gue,
        })
    }

    /// Puts it before the packet, in a frame to this backend's next hop, if one is given.
    #[inline(always)]
    fn put(&self, packet: &Packet, to: Option<&Backend>) -> Result<(), Reason> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "two headers"
        )]
        packet
            .grow(tunnel::overhead(false, self.gue) as i32)
            .ok_or(Reason::NoHeadroom)?;
        if self.gue {
            let start = StartMut::<{ V4_END + UDP_LEN }>::of(packet).ok_or(Reason::Internal)?;
            self.write(&start, to);
            start.set_double::<V4_END>(self.udp);
        } else {
            self.write(&StartMut::<V4_END>::of(packet).ok_or(Reason::Internal)?, to);
        }
        Ok(())
    }

    #[inline(always)]
    fn write<const LEN: usize>(&self, start: &StartMut<LEN>, to: Option<&Backend>) {
        if let Some(to) = to {
            start.set_macs(NextHop::resolved(to).macs);
        }
        start.set_half::<MACS_LEN>(EtherType::Ipv4 as u16);
        start.set_double::<{ EthHdr::LEN }>(self.words[0]);
        start.set_double::<{ EthHdr::LEN + 8 }>(self.words[1]);
        start.set_word::<{ EthHdr::LEN + 16 }>(self.destination);
    }
}

/// An outer IPv6 header, and perhaps that of UDP, in words as they stand in memory. The addresses are the backend's.
struct HeaderV6 {
    /// Up to the addresses.
    first: u64,
    /// The bits of the source that the flow's hash fills, in its last word.
    entropy: u32,
    udp: u64,
    gue: bool,
}

impl HeaderV6 {
    /// `sum` is the packet's sum, for GUE's checksum; without it there is no checksum, as RFC 6935 allows tunnels.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an IP packet's length has 16 bits"
    )]
    fn new(backend: &Backend, outer: Outer, hash: u32, sum: Option<Sum>) -> Result<Self, Reason> {
        let payload = (outer.len + tunnel::overhead(true, outer.gue) - V6_LEN) as u16;
        let protocol = if outer.gue { UDP } else { outer.protocol };
        let first = 6 << 28 | u32::from(outer.traffic_class) << 20 | tunnel::flow_label(hash);
        let second = word(payload, u16::from(protocol) << 8 | u16::from(HOP_LIMIT));
        let entropy = backend.source_entropy(hash);
        let udp = if outer.gue {
            let port = gue_port()?;
            let checksum = sum.map_or(0, |sum| {
                let addresses = [backend.source.v6().0, backend.address.v6().0];
                let addresses = addresses.iter().flatten();
                let addresses = addresses.fold(sum, |sum, word| sum.add32(*word));
                let [ports, length] = udp_words(outer, hash, port, 0);
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
            double(udp_words(outer, hash, port, u16::from_be(checksum)))
        } else {
            0
        };
        Ok(Self {
            first: double([first.to_be(), second]),
            entropy,
            udp,
            gue: outer.gue,
        })
    }

    /// Puts it before the packet, with the addresses of `backend`, in a frame to the next hop of `to`, if one is given.
    #[inline(always)]
    fn put(&self, packet: &Packet, backend: &Backend, to: Option<&Backend>) -> Result<(), Reason> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "two headers"
        )]
        packet
            .grow(tunnel::overhead(true, self.gue) as i32)
            .ok_or(Reason::NoHeadroom)?;
        if self.gue {
            let start = StartMut::<{ V6_END + UDP_LEN }>::of(packet).ok_or(Reason::Internal)?;
            self.write(&start, backend, to);
            start.set_double::<V6_END>(self.udp);
        } else {
            let start = StartMut::<V6_END>::of(packet).ok_or(Reason::Internal)?;
            self.write(&start, backend, to);
        }
        Ok(())
    }

    #[inline(always)]
    fn write<const LEN: usize>(&self, start: &StartMut<LEN>, backend: &Backend, to: Option<&Backend>) {
        if let Some(to) = to {
            start.set_macs(NextHop::resolved(to).macs);
        }
        start.set_half::<MACS_LEN>(EtherType::Ipv6 as u16);
        start.set_double::<{ EthHdr::LEN }>(self.first);
        let [source, destination] =
            [&backend.source, &backend.address].map(|address| (&raw const address.0).cast());
        // SAFETY: 16 bytes each.
        let [a, b, c, d] = unsafe {
            [
                load64::<0>(source),
                load64::<8>(source),
                load64::<0>(destination),
                load64::<8>(destination),
            ]
        };
        start.set_double::<{ EthHdr::LEN + 8 }>(a);
        start.set_double::<{ EthHdr::LEN + 16 }>(b | u64::from(self.entropy) << u32::BITS);
        start.set_double::<{ EthHdr::LEN + 24 }>(c);
        start.set_double::<{ EthHdr::LEN + 32 }>(d);
    }
}

/// The port that GUE packets go to.
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
