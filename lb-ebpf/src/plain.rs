//! Plain packets, which most are: TCP or UDP behind an IP header without options or extension headers, and no fragment. All of
//! it stands at offsets that the compiler knows, and takes one check of bounds.

use core::{hint::cold_path, ptr};

use lb_common::{
    addr::{NetV4, NetV6},
    flow::{Tuple, TupleV4, TupleV6},
    service::{TCP, UDP},
};
use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    header::{Ip, Protocol},
    next_stage::NextStage,
    packet::Packet,
    scratch::Scratch,
    start::Start,
};

/// Where the IP header stands.
const IP: usize = EthHdr::LEN;
/// Offsets of the header after IPv4 and IPv6 headers.
const AFTER_V4: usize = IP + Ipv4Hdr::LEN;
const AFTER_V6: usize = IP + Ipv6Hdr::LEN;
/// Bytes of a tuple after its addresses.
const PORTS: usize = 8;

/// How a family's plain packets are read. Implemented by the family's address.
pub(crate) trait Plain: Sized {
    /// The header of a plain packet, whose tuple is left in the scratch; else the stage of the packet, also of one that is too
    /// short. The header of an ICMP message is left in the scratch. Measures a packet that does not end in the frame's first buffer.
    fn plain(packet: &mut Packet, scratch: &mut Scratch<Self>) -> Result<Ip, NextStage>;
    /// Whether a packet's source is one for certain that it may come from, see [`crate::transport::is_martian`]: quicker than
    /// to find out exactly.
    fn is_surely_valid(tuple: &Tuple<Self>) -> bool;
}

impl Plain for NetV4 {
    #[inline(always)]
    fn plain(packet: &mut Packet, scratch: &mut Scratch<Self>) -> Result<Ip, NextStage> {
        // Version 4, 5 words; neither an offset nor "more fragments".
        const MASK: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
        const PLAIN: u64 = 0x45;
        // The offset.
        const FOLLOWS: u64 = u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0x1f, 0xff]);
        const { assert!(size_of::<TupleV4>() == 8 + PORTS) };
        let start = Start::<{ AFTER_V4 + UdpHdr::LEN }>::of(packet).ok_or(NextStage::Classify)?;
        let first = start.double::<IP>();
        if first & MASK != PLAIN {
            cold_path();
            return Err(if first & FOLLOWS != 0 && first & 0xff == PLAIN {
                NextStage::Fragment
            } else {
                NextStage::Classify
            });
        }
        let [.., high, low, _, _, _, _] = first.to_le_bytes();
        let end = IP + usize::from(u16::from_be_bytes([high, low]));
        whole(packet, AFTER_V4, end)?;
        let [hop_limit, kind, ..] = start.word::<{ IP + 8 }>().to_le_bytes();
        let ip = |protocol| Ip {
            protocol,
            hop_limit,
            header: IP,
            payload: AFTER_V4,
            end,
        };
        if kind == IpProto::Icmp as u8 {
            cold_path();
            scratch.ip = ip(Protocol::Icmp);
            return Err(NextStage::Icmp);
        }
        let protocol = protocol(kind)?;
        let number = u64::from(kind) << u32::BITS;
        let addresses = start.double::<{ AFTER_V4 - 8 }>();
        write(&mut scratch.tuple, [addresses, start.word::<AFTER_V4>() | number]);
        Ok(ip(protocol))
    }

    #[inline(always)]
    fn is_surely_valid(tuple: &TupleV4) -> bool {
        !tuple.src.is_martian() && tuple.src != tuple.dst
    }
}

impl Plain for NetV6 {
    #[inline(always)]
    fn plain(packet: &mut Packet, scratch: &mut Scratch<Self>) -> Result<Ip, NextStage> {
        // Of a fragment header.
        const OFFSET: u64 = u64::from_le_bytes([0, 0, 0xff, 0xf8, 0, 0, 0, 0]);
        const { assert!(size_of::<TupleV6>() == 32 + PORTS) };
        let start = Start::<{ AFTER_V6 + UdpHdr::LEN }>::of(packet).ok_or(NextStage::Classify)?;
        let [first, _, _, _, high, low, kind, hop_limit] = start.double::<IP>().to_le_bytes();
        let len = usize::from(u16::from_be_bytes([high, low]));
        if first >> 4 != 6 {
            cold_path();
            return Err(NextStage::Classify);
        }
        if kind == IpProto::Ipv6Frag as u8 {
            cold_path();
            return Err(if len != 0 && start.word::<AFTER_V6>() & OFFSET != 0 {
                NextStage::Fragment
            } else {
                NextStage::Classify
            });
        }
        let end = AFTER_V6 + len;
        whole(packet, AFTER_V6, end)?;
        let ip = |protocol| Ip {
            protocol,
            hop_limit,
            header: IP,
            payload: AFTER_V6,
            end,
        };
        if kind == IpProto::Ipv6Icmp as u8 {
            cold_path();
            scratch.ip = ip(Protocol::Icmp);
            return Err(NextStage::Icmp);
        }
        let protocol = protocol(kind)?;
        let number = u64::from(kind) << u32::BITS;
        write(
            &mut scratch.tuple,
            [
                start.double::<{ IP + 8 }>(),
                start.double::<{ IP + 16 }>(),
                start.double::<{ IP + 24 }>(),
                start.double::<{ IP + 32 }>(),
                start.word::<AFTER_V6>() | number,
            ],
        );
        Ok(ip(protocol))
    }

    #[inline(always)]
    fn is_surely_valid(tuple: &TupleV6) -> bool {
        // Neither the unspecified address nor loopback, which begin with 0, nor multicast; the service has other low bits.
        let ([first, second], [_, of_service]) = (tuple.src.halves(), tuple.dst.halves());
        (1..=0xfe).contains(&(first & 0xff)) && second != of_service
    }
}

/// The protocol of a number in a header.
#[inline(always)]
fn protocol(kind: u8) -> Result<Protocol, NextStage> {
    if kind == TCP {
        Ok(Protocol::Tcp)
    } else if kind == UDP {
        Ok(Protocol::Udp)
    } else {
        cold_path();
        Err(NextStage::Classify)
    }
}

/// Writes a tuple, word by word: so it is read again by words, too, which the CPU forwards.
#[inline(always)]
fn write<A, const N: usize>(tuple: &mut Tuple<A>, words: [u64; N]) {
    const { assert!(size_of::<Tuple<A>>() == N * 8 && align_of::<Tuple<A>>() == 8) };
    // SAFETY: as many words, as just asserted; any bytes are a tuple.
    unsafe { ptr::from_mut(tuple).cast::<[u64; N]>().write(words) };
}

/// Whether the packet is whole, and holds the shorter of the two headers that may follow. Before the rest of it is read, so that little
/// has to be kept over a call.
#[inline(always)]
fn whole(packet: &mut Packet, payload: usize, end: usize) -> Result<(), NextStage> {
    if end > packet.frame_len as usize {
        cold_path();
        packet.measure();
        if end > packet.frame_len as usize {
            return Err(NextStage::Classify);
        }
    }
    if end < payload + UdpHdr::LEN {
        cold_path();
        return Err(NextStage::Classify);
    }
    Ok(())
}
