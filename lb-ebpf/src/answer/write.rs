//! The headers of packets that the balancer sends itself.

use lb_common::{
    addr::{NetV4, NetV6},
    csum::Sum,
    flow::Tuple,
    limits::{ICMP_ERROR_V4, ICMP_ERROR_V6, OWN_HOP_LIMIT},
    reason::Reason,
};
use network_types::{
    eth::{EthHdr, EtherType},
    icmp::Icmpv4Hdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    family::Family,
    packet::{MACS_LEN, Macs, Packet},
};

/// Bytes of the header of an ICMP error.
pub(super) const ICMP: usize = Icmpv4Hdr::LEN;

/// Back to the station that the packet came from.
#[inline(always)]
pub(super) fn ethernet<A: Reply>(packet: &Packet, macs: Macs) -> Result<(), Reason> {
    packet.set_macs(macs.swapped()).ok_or(Reason::Internal)?;
    packet.set_half(MACS_LEN, A::ETHER_TYPE).ok_or(Reason::Internal)
}

/// The sum of the pseudo header of a packet that answers the one of `tuple`.
#[inline(always)]
pub(super) fn pseudo<A: Family>(tuple: &Tuple<A>, protocol: IpProto, len: usize) -> Sum {
    #[expect(clippy::cast_possible_truncation, reason = "a packet of ours")]
    let len = (len as u16).to_be();
    let sum = tuple.src.add_to(tuple.dst.add_to(Sum::ZERO));
    sum.add(u16::from(protocol as u8).to_be()).add(len)
}

#[inline(always)]
pub(super) fn sum_of<const N: usize>(sum: Sum, words: &[u32; N]) -> Sum {
    words.iter().fold(sum, |sum, word| sum.add32(*word))
}

/// What a family's own packets look like.
pub(crate) trait Reply: Family {
    /// Of the frame.
    const ETHER_TYPE: u16;
    /// Bytes of a header without options or extensions.
    const LEN: usize;
    /// The family's ICMP.
    const ICMP: IpProto;
    /// Type and code of "port unreachable".
    const PORT_UNREACHABLE: [u8; 2];
    /// Type and code of "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443), whose second word is the size.
    const TOO_BIG: [u8; 2];
    /// Bytes of a packet that an ICMP error quotes at most.
    const LONGEST_QUOTE: usize;

    /// The sum of as many, from `at` on.
    fn sum_longest(packet: &Packet, at: usize) -> Option<Sum>;

    /// Writes the IP header of a packet that answers the one of `tuple` and carries `len` bytes.
    fn write_header(
        packet: &Packet,
        tuple: &Tuple<Self>,
        protocol: IpProto,
        len: usize,
    ) -> Result<(), Reason>;
}

impl Reply for NetV4 {
    const ETHER_TYPE: u16 = EtherType::Ipv4 as u16;
    const LEN: usize = Ipv4Hdr::LEN;
    const ICMP: IpProto = IpProto::Icmp;
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    const TOO_BIG: [u8; 2] = [3, 4];
    const LONGEST_QUOTE: usize = ICMP_ERROR_V4 - Self::LEN - ICMP;

    #[inline(always)]
    fn sum_longest(packet: &Packet, at: usize) -> Option<Sum> {
        const REST: usize = (NetV4::LONGEST_QUOTE - 512) / 4;
        let sum = Sum::ZERO.add32(packet.sum::<512>(at, 0)?);
        // Cheaper than one more call.
        Some(sum_of(sum, &packet.raw_words::<REST>(at + 512)?))
    }

    #[inline(always)]
    fn write_header(
        packet: &Packet,
        tuple: &Tuple<Self>,
        protocol: IpProto,
        len: usize,
    ) -> Result<(), Reason> {
        const VERSION_AND_WORDS: u32 = 0x4500_0000;
        const DONT_FRAGMENT: u32 = 0x4000;
        #[expect(clippy::cast_possible_truncation, reason = "a packet of ours")]
        let total = (Self::LEN + len) as u32;
        let protocol = protocol as u8;
        let mut words = [
            (VERSION_AND_WORDS | total).to_be(),
            DONT_FRAGMENT.to_be(),
            u32::from_ne_bytes([OWN_HOP_LIMIT, protocol, 0, 0]),
            tuple.dst.0,
            tuple.src.0,
        ];
        let [low, high] = (!sum_of(Sum::ZERO, &words).fold()).to_ne_bytes();
        words[2] = u32::from_ne_bytes([OWN_HOP_LIMIT, protocol, low, high]);
        packet.put(EthHdr::LEN, words).ok_or(Reason::Internal)
    }
}

impl Reply for NetV6 {
    const ETHER_TYPE: u16 = EtherType::Ipv6 as u16;
    const LEN: usize = Ipv6Hdr::LEN;
    const ICMP: IpProto = IpProto::Ipv6Icmp;
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    const TOO_BIG: [u8; 2] = [2, 0];
    const LONGEST_QUOTE: usize = ICMP_ERROR_V6 - Self::LEN - ICMP;

    #[inline(always)]
    fn sum_longest(packet: &Packet, at: usize) -> Option<Sum> {
        const REST: usize = NetV6::LONGEST_QUOTE - 1024;
        let seed = packet.sum::<512>(at + 512, packet.sum::<512>(at, 0)?)?;
        Some(Sum::ZERO.add32(packet.sum::<REST>(at + 1024, seed)?))
    }

    #[inline(always)]
    fn write_header(
        packet: &Packet,
        tuple: &Tuple<Self>,
        protocol: IpProto,
        len: usize,
    ) -> Result<(), Reason> {
        const VERSION: u32 = 0x6000_0000;
        #[expect(clippy::cast_possible_truncation, reason = "a packet of ours")]
        let [a, b] = (len as u16).to_be_bytes();
        let ([e, f, g, h], [i, j, k, l]) = (tuple.dst.0, tuple.src.0);
        let second = u32::from_ne_bytes([a, b, protocol as u8, OWN_HOP_LIMIT]);
        let words = [VERSION.to_be(), second, e, f, g, h, i, j, k, l];
        packet.put(EthHdr::LEN, words).ok_or(Reason::Internal)
    }
}
