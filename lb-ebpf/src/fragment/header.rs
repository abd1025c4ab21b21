//! The headers of a fragment.

use core::mem::offset_of;

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::{
    addr::{NetV4, NetV6},
    csum::{self, Sum},
    fragment::Datagram,
    reason::Reason,
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    clock::now_secs,
    family::Family,
    header::{Fragments, Protocol},
    next_stage::NextStage,
    packet::Packet,
    parse,
    scratch::{Fragment, FragmentScratch},
    walk,
};
use lb_wire::Frame as _;

/// The differences of IPv4 and IPv6.
pub(crate) trait Fragmented: Family {
    /// Reads the packet's headers, if it may be a fragment of TCP or UDP.
    fn read(packet: &Packet, fragment: &mut Fragment) -> Result<(), Reason>;
    /// A new identification.
    fn new_id() -> u32;
    /// Writes an identification, and keeps the header's checksum right.
    fn set_id(packet: &Packet, fragment: &Fragment, id: u32) -> Option<()>;
}

/// Fills in what does not depend on the way.
#[inline(always)]
pub(super) fn begin<A: Fragmented>(packet: &Packet, fragments: &mut FragmentScratch<A>, kind: u8) {
    let FragmentScratch {
        fragment,
        datagram: key,
        went,
        ..
    } = fragments;
    // A failure leaves the addresses of another packet, which the first fragment's own way would have noticed.
    let _ = set_key(packet, fragment, key);
    went.kind = kind;
    went.seen = now_secs();
    (went.pad, went.pad_end) = (0, [0; 2]);
}

#[inline(always)]
pub(super) fn set_key<A: Fragmented>(
    packet: &Packet,
    fragment: &Fragment,
    key: &mut Datagram<A>,
) -> Option<()> {
    A::addresses(packet, fragment.ip.header, &mut key.src, &mut key.dst)?;
    (key.id, key.protocol) = (fragment.id, fragment.protocol);
    Some(())
}

impl Fragmented for NetV4 {
    #[inline(always)]
    fn read(packet: &Packet, fragment: &mut Fragment) -> Result<(), Reason> {
        const OFFSET: u16 = 0x1fff;
        fragment.ip = parse::ipv4_header(packet, EthHdr::LEN, Fragments::All).map_err(NextStage::reason)?;
        if fragment.ip.end > packet.frame_len as usize {
            return Err(Reason::Truncated);
        }
        if fragment.ip.protocol == Protocol::Icmp {
            return Err(Reason::OtherProtocol);
        }
        let header: Ipv4Hdr = packet.read(EthHdr::LEN).ok_or(Reason::Internal)?;
        fragment.first = u16::from_be_bytes(header.frags) & OFFSET == 0;
        fragment.id_at = EthHdr::LEN + offset_of!(Ipv4Hdr, id);
        fragment.id = u32::from(u16::from_ne_bytes(header.id));
        fragment.protocol = u32::from(header.proto);
        fragment.carries = header.proto;
        Ok(())
    }

    #[inline(always)]
    fn new_id() -> u32 {
        // SAFETY: takes no arguments.
        unsafe { bpf_get_prandom_u32() & 0xffff }
    }

    #[inline(always)]
    fn set_id(packet: &Packet, fragment: &Fragment, id: u32) -> Option<()> {
        #[expect(clippy::cast_possible_truncation, reason = "16 bits")]
        let id = id as u16;
        // SAFETY: in use until the end of this function, which touches no other bytes.
        let header: &mut Ipv4Hdr = unsafe { packet.at(fragment.ip.header) }?;
        let delta = Sum::ZERO.sub(u16::from_ne_bytes(header.id)).add(id).fold();
        header.id = id.to_ne_bytes();
        header.check = csum::update(u16::from_ne_bytes(header.check), delta).to_ne_bytes();
        Some(())
    }
}

impl Fragmented for NetV6 {
    #[inline(always)]
    fn read(packet: &Packet, fragment: &mut Fragment) -> Result<(), Reason> {
        const OFFSET: u16 = 0xfff8;
        /// Where the identification stands in a fragment header.
        const ID: usize = 4;
        let at = walk::fragment_header(packet);
        if at == 0 {
            return Err(Reason::OtherProtocol);
        }
        let [carries, _, high, low, a, b, c, d]: [u8; 8] = packet.read(at).ok_or(Reason::Truncated)?;
        let header: Ipv6Hdr = packet.read(EthHdr::LEN).ok_or(Reason::Internal)?;
        // Known of the first one only, and never read.
        fragment.ip.protocol = Protocol::Udp;
        fragment.ip.hop_limit = header.hop_limit;
        fragment.ip.header = EthHdr::LEN;
        fragment.ip.payload = at + 8;
        fragment.ip.end = EthHdr::LEN + Ipv6Hdr::LEN + header.payload_len() as usize;
        if fragment.ip.end > packet.frame_len as usize || fragment.ip.end < fragment.ip.payload {
            return Err(Reason::Truncated);
        }
        fragment.first = u16::from_be_bytes([high, low]) & OFFSET == 0;
        fragment.id_at = at + ID;
        fragment.id = u32::from_ne_bytes([a, b, c, d]);
        fragment.protocol = 0;
        fragment.carries = carries;
        Ok(())
    }

    #[inline(always)]
    fn new_id() -> u32 {
        // SAFETY: takes no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn set_id(packet: &Packet, fragment: &Fragment, id: u32) -> Option<()> {
        packet.put(fragment.id_at, [id])
    }
}
