//! Plain packets, which most are: TCP or UDP behind an IP header without options or extension headers, and no fragment. All of
//! it stands at offsets that the compiler knows, and takes one check of bounds.

use core::ptr;

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
    /// The header of a plain packet, whose tuple is copied, or of an ICMP message; else the stage of the packet, also of one that
    /// is too short.
    fn plain(packet: &Packet, tuple: &mut Tuple<Self>) -> Result<Ip, NextStage>;
    /// Whether a packet's source is one for certain that it may come from, see [`crate::transport::is_martian`]: quicker than
    /// to find out exactly.
    fn is_surely_valid(tuple: &Tuple<Self>) -> bool;
}

impl Plain for NetV4 {
    #[inline(always)]
    fn plain(packet: &Packet, tuple: &mut TupleV4) -> Result<Ip, NextStage> {
        // Version 4, 5 words; neither an offset nor "more fragments".
        const MASK: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
        const PLAIN: u64 = 0x45;
        // The offset.
        const FOLLOWS: u64 = u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0x1f, 0xff]);
        const { assert!(size_of::<TupleV4>() == 8 + PORTS) };
        let start = Start::<{ AFTER_V4 + UdpHdr::LEN }>::of(packet).ok_or(NextStage::Classify)?;
        let first = start.double::<IP>();
        if first & MASK != PLAIN {
            return Err(if first & FOLLOWS != 0 && first & 0xff == PLAIN {
                NextStage::Fragment
            } else {
                NextStage::Classify
            });
        }
        let [.., high, low, _, _, _, _] = first.to_le_bytes();
        let [hop_limit, kind, ..] = start.word::<{ IP + 8 }>().to_le_bytes();
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (protocol, number) = protocol(kind, IpProto::Icmp)?;
        let addresses = start.double::<{ AFTER_V4 - 8 }>();
        write(tuple, [addresses, start.word::<AFTER_V4>() | number]);
        whole(packet, protocol, hop_limit, AFTER_V4, IP + len)
    }

    #[inline(always)]
    fn is_surely_valid(tuple: &TupleV4) -> bool {
        !tuple.src.is_martian() && tuple.src != tuple.dst
    }
}

impl Plain for NetV6 {
    #[inline(always)]
    fn plain(packet: &Packet, tuple: &mut TupleV6) -> Result<Ip, NextStage> {
        // Of a fragment header.
        const OFFSET: u64 = u64::from_le_bytes([0, 0, 0xff, 0xf8, 0, 0, 0, 0]);
        const { assert!(size_of::<TupleV6>() == 32 + PORTS) };
        let start = Start::<{ AFTER_V6 + UdpHdr::LEN }>::of(packet).ok_or(NextStage::Classify)?;
        let [first, _, _, _, high, low, kind, hop_limit] = start.double::<IP>().to_le_bytes();
        let len = usize::from(u16::from_be_bytes([high, low]));
        if first >> 4 != 6 {
            return Err(NextStage::Classify);
        }
        if len != 0 && kind == IpProto::Ipv6Frag as u8 && start.word::<AFTER_V6>() & OFFSET != 0 {
            return Err(NextStage::Fragment);
        }
        let (protocol, number) = protocol(kind, IpProto::Ipv6Icmp)?;
        write(
            tuple,
            [
                start.double::<{ IP + 8 }>(),
                start.double::<{ IP + 16 }>(),
                start.double::<{ IP + 24 }>(),
                start.double::<{ IP + 32 }>(),
                start.word::<AFTER_V6>() | number,
            ],
        );
        whole(packet, protocol, hop_limit, AFTER_V6, AFTER_V6 + len)
    }

    #[inline(always)]
    fn is_surely_valid(tuple: &TupleV6) -> bool {
        // Neither the unspecified address nor loopback, which begin with 0, nor multicast; the service has other low bits.
        let ([first, second], [_, of_service]) = (tuple.src.halves(), tuple.dst.halves());
        (1..=0xfe).contains(&(first & 0xff)) && second != of_service
    }
}

/// The protocol of a number in a header, and where a tuple has that.
#[inline(always)]
fn protocol(kind: u8, icmp: IpProto) -> Result<(Protocol, u64), NextStage> {
    let number = u64::from(kind) << u32::BITS;
    if kind == TCP {
        Ok((Protocol::Tcp, number))
    } else if kind == UDP {
        Ok((Protocol::Udp, number))
    } else if kind == icmp as u8 {
        Ok((Protocol::Icmp, number))
    } else {
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

/// The header, if the packet is whole, and holds the shorter of the two headers that may follow.
#[inline(always)]
fn whole(
    packet: &Packet,
    protocol: Protocol,
    hop_limit: u8,
    payload: usize,
    end: usize,
) -> Result<Ip, NextStage> {
    if end < payload + UdpHdr::LEN || end > packet.frame_len as usize {
        return Err(NextStage::Classify);
    }
    Ok(Ip {
        protocol,
        hop_limit,
        header: IP,
        payload,
        end,
    })
}
