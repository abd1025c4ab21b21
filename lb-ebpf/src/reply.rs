//! Packets that the balancer itself sends back in place of the one that came: a TCP reset, or an ICMP error that quotes it.
//!
//! The functions at work are what the verifier calls global (see [`crate::open`]): these packets are rare, and their stack
//! and instructions are nobody else's. They take the packet's tuple from the room.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{NetV4, NetV6},
    csum::Sum,
    flow::Tuple,
    limits::{ICMP_ERROR_V4, ICMP_ERROR_V6, OWN_HOP_LIMIT},
    reason::Reason,
    service::ServiceId,
};
use network_types::{
    eth::{EthHdr, EtherType},
    icmp::Icmpv4Hdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    budget,
    family::Family,
    maps::{self, Scratch},
    packet::{MACS_LEN, Macs, Packet},
    parse::Protocol,
    reset, service,
};

/// Answers a packet of a service that has no backend, and counts that for the service. Returns what has become of it.
#[inline(always)]
pub(crate) fn reject<A: Family>(packet: &Packet) -> Reason {
    let reject = if A::IS_V6 { reject_v6 } else { reject_v4 };
    // As in `open::outcome`.
    let reason = core::hint::black_box(reject(packet.context()));
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// [`reject`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reject_v4(ctx: *mut xdp_md) -> u32 {
    rejected::<NetV4>(&Packet::new(ctx)) as u32
}

/// [`reject`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reject_v6(ctx: *mut xdp_md) -> u32 {
    rejected::<NetV6>(&Packet::new(ctx)) as u32
}

#[inline(always)]
fn rejected<A: Reply>(packet: &Packet) -> Reason {
    let room = match A::room() {
        Ok(room) => room,
        Err(reason) => return reason,
    };
    service::find(room);
    if !room.service.is_some() {
        // It goes while this packet is under way.
        return Reason::NoBackend;
    }
    let service = room.service.id;
    let (Ok(reason) | Err(reason)) = try_reject::<A>(packet, service);
    maps::count_service_drop(service, reason);
    reason
}

#[inline(always)]
fn try_reject<A: Reply>(packet: &Packet, service: ServiceId) -> Result<Reason, Reason> {
    let ip = A::parse(packet)?;
    // RFC 1122 section 3.2.2: nobody answers who may be many, or nobody.
    if !A::room()?.tuple.src.is_host() {
        return Err(Reason::NoBackend);
    }
    match ip.protocol {
        // How long the segment is, and so what a reset would acknowledge, the other fragments know.
        Protocol::Tcp if A::is_fragment(packet, &ip) => Err(Reason::NoBackend),
        Protocol::Tcp => {
            reset::answer::<A>(packet, &ip)?;
            Ok(Reason::RejectedReset)
        }
        Protocol::Udp => {
            if !budget::admit_message(service)? {
                return Err(Reason::UnreachableRate);
            }
            send_error::<A>(packet, ip.len(), A::PORT_UNREACHABLE, 0)?;
            Ok(Reason::RejectedUnreachable)
        }
        Protocol::Icmp => Err(Reason::Internal),
    }
}

/// Tells the sender of a packet that does not fit the way to its backend which size does. Returns what has become of it.
#[inline(always)]
pub(crate) fn too_big<A: Family>(packet: &Packet) -> Reason {
    let too_big = if A::IS_V6 { too_big_v6 } else { too_big_v4 };
    // As in `open::outcome`.
    let reason = core::hint::black_box(too_big(packet.context()));
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// [`too_big`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn too_big_v4(ctx: *mut xdp_md) -> u32 {
    told::<NetV4>(&Packet::linear(ctx)) as u32
}

/// [`too_big`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn too_big_v6(ctx: *mut xdp_md) -> u32 {
    told::<NetV6>(&Packet::linear(ctx)) as u32
}

/// Tells the sender, and counts for the service what has become of the packet. Both header and service are in the room.
#[inline(always)]
fn told<A: Reply>(packet: &Packet) -> Reason {
    let room = match A::room() {
        Ok(room) => room,
        Err(reason) => return reason,
    };
    let (Ok(reason) | Err(reason)) = try_too_big(packet, &room);
    maps::count_service_drop(room.service.id, reason);
    reason
}

/// Whether or not an IPv4 packet has DF: nobody here fragments it, and its sender can.
#[inline(always)]
fn try_too_big<A: Reply>(packet: &Packet, room: &Scratch<A>) -> Result<Reason, Reason> {
    // As for other messages; and none is sent about an error, or before a limit is known.
    if room.ip.protocol == Protocol::Icmp || !room.tuple.src.is_host() || room.limit.get() == 0 {
        return Err(Reason::TooBig);
    }
    if !budget::admit_message(room.service.id)? {
        return Err(Reason::TooBig);
    }
    // As part of this function: one call less, and the packet is parsed already.
    let kind = u16::from_ne_bytes(A::TOO_BIG);
    error::<A>(packet, room.ip.len(), kind.into(), room.limit.get().to_be())?;
    Ok(Reason::TooBigAnswered)
}

/// Turns a packet of `ip_len` bytes into an ICMP error about it, which quotes as much of it as may be. `kind` is type and code, `rest` the
/// second word of the ICMP header as it stands in memory.
#[inline(always)]
fn send_error<A: Reply>(packet: &Packet, ip_len: usize, kind: [u8; 2], rest: u32) -> Result<(), Reason> {
    let error = if A::IS_V6 { error_v6 } else { error_v4 };
    let kind = u32::from(u16::from_ne_bytes(kind));
    // As in `open::outcome`.
    let reason = core::hint::black_box(error(packet.context(), ip_len, kind, rest));
    match Reason::from_number(reason) {
        Some(SENT) => Ok(()),
        Some(reason) => Err(reason),
        None => Err(Reason::Internal),
    }
}

/// What [`error_v4`] and [`error_v6`] return where all went well.
const SENT: Reason = Reason::SentBack;

/// [`send_error`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn error_v4(ctx: *mut xdp_md, ip_len: usize, kind: u32, rest: u32) -> u32 {
    error::<NetV4>(&Packet::new(ctx), ip_len, kind, rest).map_or_else(|reason| reason, |()| SENT) as u32
}

/// [`send_error`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn error_v6(ctx: *mut xdp_md, ip_len: usize, kind: u32, rest: u32) -> u32 {
    error::<NetV6>(&Packet::new(ctx), ip_len, kind, rest).map_or_else(|reason| reason, |()| SENT) as u32
}

/// Bytes of the header of an ICMP error.
const ICMP: usize = Icmpv4Hdr::LEN;

/// [`send_error`].
#[inline(always)]
fn error<A: Reply>(packet: &Packet, ip_len: usize, kind: u32, rest: u32) -> Result<(), Reason> {
    let linear = packet.linear_len() - EthHdr::LEN;
    // Whole words, since that is what is summed up.
    let quoted = ip_len.min(linear).min(A::LONGEST_QUOTE) & !3;
    let macs = packet.macs().ok_or(Reason::Internal)?;
    let more = A::LEN + ICMP;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "two headers"
    )]
    packet.grow(more as i32).ok_or(Reason::NoHeadroom)?;
    let quote = EthHdr::LEN + more;
    if !packet.cut(packet.frame_len as usize + more, quote + quoted) {
        return Err(Reason::Internal);
    }

    let tuple = &A::room()?.tuple;
    let protocol = A::ICMP;
    let mut sum = if A::IS_V6 {
        pseudo(tuple, protocol, ICMP + quoted)
    } else {
        Sum::ZERO
    };
    // Most packets that do not fit are longer than what may be quoted.
    let quote_sum = if quoted == A::LONGEST_QUOTE {
        A::sum_longest(packet, quote)
    } else {
        sum_quote(packet, quote, quoted).map(|seed| Sum::ZERO.add32(seed))
    };
    let quote_sum = quote_sum.ok_or(Reason::Internal)?;
    let [kind, code, ..] = kind.to_ne_bytes();
    sum = sum_of(
        sum.plus(quote_sum),
        &[u32::from_ne_bytes([kind, code, 0, 0]), rest],
    );
    let [check_low, check_high] = (!sum.fold()).to_ne_bytes();

    ethernet::<A>(packet, macs)?;
    A::write_header(packet, tuple, protocol, ICMP + quoted)?;
    let words = [u32::from_ne_bytes([kind, code, check_low, check_high]), rest];
    packet.put(EthHdr::LEN + A::LEN, words).ok_or(Reason::Internal)
}

/// The partial checksum of what is quoted: `len` bytes, a multiple of 4, from `at` on.
#[inline(always)]
fn sum_quote(packet: &Packet, at: usize, len: usize) -> Option<u32> {
    const { assert!(ICMP_ERROR_V4 < 2048 && ICMP_ERROR_V6 < 2048) };
    let mut seed = 0;
    if has_part::<1024>(len) {
        seed = packet.sum::<512>(at, seed)?;
        seed = packet.sum::<512>(at + 512, seed)?;
    }
    seed = add::<512>(packet, at, len, seed)?;
    seed = add::<256>(packet, at, len, seed)?;
    seed = add::<128>(packet, at, len, seed)?;
    seed = add::<64>(packet, at, len, seed)?;
    seed = add::<32>(packet, at, len, seed)?;
    seed = add::<16>(packet, at, len, seed)?;
    seed = add::<8>(packet, at, len, seed)?;
    add::<4>(packet, at, len, seed)
}

/// Whether `len` has a part of `N` bytes, a power of 2, behind its larger ones. Asked of a copy: the verifier learns from
/// each answer, and would walk the rest once for every combination of them.
#[inline(always)]
fn has_part<const N: usize>(len: usize) -> bool {
    core::hint::black_box(len) & N != 0
}

/// Adds the part of `N` bytes to a partial checksum, if `len` has it.
#[inline(always)]
fn add<const N: usize>(packet: &Packet, at: usize, len: usize, seed: u32) -> Option<u32> {
    if !has_part::<N>(len) {
        return Some(seed);
    }
    packet.sum::<N>(at + (len & !(2 * N - 1)), seed)
}

/// Back to the station that the packet came from.
#[inline(always)]
pub(crate) fn ethernet<A: Reply>(packet: &Packet, macs: Macs) -> Result<(), Reason> {
    packet.set_macs(macs.swapped()).ok_or(Reason::Internal)?;
    *packet.at::<[u8; 2]>(MACS_LEN).ok_or(Reason::Internal)? = A::ETHER_TYPE.to_ne_bytes();
    Ok(())
}

/// The sum of the pseudo header of a packet that answers the one of `tuple`.
#[inline(always)]
pub(crate) fn pseudo<A: Family>(tuple: &Tuple<A>, protocol: IpProto, len: usize) -> Sum {
    #[expect(clippy::cast_possible_truncation, reason = "a packet of ours")]
    let len = (len as u16).to_be();
    let sum = tuple.src.add_to(tuple.dst.add_to(Sum::ZERO));
    sum.add(u16::from(protocol as u8).to_be()).add(len)
}

#[inline(always)]
pub(crate) fn sum_of<const N: usize>(sum: Sum, words: &[u32; N]) -> Sum {
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
