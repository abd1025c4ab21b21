//! From bytes to a typed view of a packet. Byte order and protocol numbers stay in here.

use lb_common::{
    addr::NetPort,
    flow::Tuple,
    limits::MAX_EXTENSION_HEADERS,
    reason::Reason,
    service::{TCP, UDP},
};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{extension, family::Family, packet::Packet};

/// What a frame carries.
pub(crate) enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What an IP packet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
}

/// An IP header but for its addresses, which are read where they are needed: they would fill half the stack. Offsets
/// are bytes from the start of the frame.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    /// What it carries.
    pub(crate) protocol: Protocol,
    /// TTL or hop limit.
    pub(crate) hop_limit: u8,
    /// Where the header begins.
    pub(crate) header: usize,
    /// Where what it carries begins.
    pub(crate) payload: usize,
    /// Where the packet ends according to its header; padding of short frames follows.
    pub(crate) end: usize,
}

impl Ip {
    /// Bytes after the IP header and its options or extension headers.
    #[inline(always)]
    pub(crate) fn payload_len(&self) -> usize {
        self.end.saturating_sub(self.payload)
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.header
    }
}

/// The byte of a TCP header that has the flags (RFC 9293 section 3.1), or that there is none. As large as a reason, so that
/// no word of a `Result` of the two is ever unset, as in [`crate::verdict::Verdict`].
#[derive(Clone, Copy)]
pub(crate) struct TcpFlags(u32);

/// Which fragments are welcome.
#[derive(Clone, Copy)]
pub(crate) enum Fragments {
    /// A first one: it has the ports.
    First,
    /// All.
    All,
}

impl Fragments {
    /// Bits of an IPv4 header's fragment word that must be clear: those of the offset.
    #[inline(always)]
    const fn refused_v4(self) -> u16 {
        match self {
            Self::First => 0x1fff,
            Self::All => 0,
        }
    }
}

impl TcpFlags {
    const FIN: u32 = 1 << 0;
    const SYN: u32 = 1 << 1;
    const RST: u32 = 1 << 2;
    const ACK: u32 = 1 << 4;
    /// Of a packet of another protocol.
    pub(crate) const NONE: Self = Self(1 << 8);

    /// Closes this direction.
    #[inline(always)]
    pub(crate) const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Opens a connection, or answers that together with ACK.
    #[inline(always)]
    pub(crate) const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Ends the connection.
    #[inline(always)]
    pub(crate) const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Acknowledges something.
    #[inline(always)]
    pub(crate) const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether the packet opens a connection.
    #[inline(always)]
    pub(crate) const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Whether the packet answers one that opens a connection.
    #[inline(always)]
    pub(crate) const fn answers(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// Whether the packet neither opens nor ends anything.
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (Self::SYN | Self::FIN | Self::RST) == 0
    }

    /// Whether they are those of a TCP segment.
    #[inline(always)]
    pub(crate) const fn are_some(self) -> bool {
        self.0 & Self::NONE.0 == 0
    }

    /// As a word, for calls that take no structures.
    #[inline(always)]
    pub(crate) const fn to_word(self) -> u32 {
        self.0
    }

    /// The flags of [`Self::to_word`].
    #[inline(always)]
    pub(crate) const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// What the frame carries.
#[inline(always)]
pub(crate) fn ethernet(packet: &Packet) -> Result<Network, Reason> {
    let ether_type = packet.half(EthHdr::LEN - 2).ok_or(Reason::Truncated)?;
    if ether_type == EtherType::Ipv4 as u16 {
        Ok(Network::V4)
    } else if ether_type == EtherType::Ipv6 as u16 {
        Ok(Network::V6)
    } else if ether_type == EtherType::Ieee8021q as u16 || ether_type == EtherType::Ieee8021ad as u16 {
        Err(Reason::Vlan)
    } else {
        Err(Reason::NotIp)
    }
}

#[inline(always)]
fn protocol_v4(number: u8) -> Result<Protocol, Reason> {
    if number == TCP {
        Ok(Protocol::Tcp)
    } else if number == UDP {
        Ok(Protocol::Udp)
    } else if number == IpProto::Icmp as u8 {
        Ok(Protocol::Icmp)
    } else {
        Err(Reason::OtherProtocol)
    }
}

/// The IPv4 header after the Ethernet header.
#[inline(always)]
pub(crate) fn ipv4(packet: &Packet) -> Result<Ip, Reason> {
    let ip = ipv4_header(packet, EthHdr::LEN, Fragments::First)?;
    if ip.end > packet.frame_len as usize {
        return Err(Reason::Truncated);
    }
    Ok(ip)
}

/// An IPv4 header; of a quoted packet too, whose end may lie outside the frame.
#[inline(always)]
pub(crate) fn ipv4_header(packet: &Packet, offset: usize, fragments: Fragments) -> Result<Ip, Reason> {
    // Version, length in words, DSCP, total length; identification, fragment; TTL, protocol, checksum.
    let [first, second, third] = packet.head::<{ Ipv4Hdr::LEN }>(offset).ok_or(Reason::Truncated)?;
    let header_len = (first >> 24 & 0xf) as usize * 4;
    let total_len = (first & 0xffff) as usize;
    if first >> 28 != 4 || header_len < Ipv4Hdr::LEN || total_len < header_len {
        return Err(Reason::Malformed);
    }
    if second & u32::from(fragments.refused_v4()) != 0 {
        return Err(Reason::Fragment);
    }
    let [ttl, protocol, ..] = third.to_be_bytes();
    Ok(Ip {
        protocol: protocol_v4(protocol)?,
        hop_limit: ttl,
        header: offset,
        payload: offset + header_len,
        end: offset + total_len,
    })
}

/// The IPv6 header after the Ethernet header, and its extension headers.
#[inline(always)]
pub(crate) fn ipv6(packet: &Packet) -> Result<Ip, Reason> {
    let ip = ipv6_header(packet, EthHdr::LEN)?;
    if ip.end > packet.frame_len as usize {
        return Err(Reason::Truncated);
    }
    Ok(ip)
}

/// An IPv6 header and its extension headers; of a quoted packet too, whose end may lie outside the frame.
#[inline(always)]
pub(crate) fn ipv6_header(packet: &Packet, offset: usize) -> Result<Ip, Reason> {
    // Version, traffic class, flow label; payload length, next header, hop limit.
    let [version, second, _] = packet.head::<{ Ipv6Hdr::LEN }>(offset).ok_or(Reason::Truncated)?;
    let payload_len = (second >> 16) as usize;
    let [.., next_header, hop_limit] = second.to_be_bytes();
    // Length 0 announces a jumbogram (RFC 2675), which no link that XDP serves carries.
    if version >> 28 != 6 || payload_len == 0 {
        return Err(Reason::Malformed);
    }
    let first = offset + Ipv6Hdr::LEN;
    let (protocol, payload) = match protocol_v6(next_header) {
        Some(protocol) => (protocol, first),
        None => extension::headers(packet, next_header, first)?,
    };
    let end = first + payload_len;
    if payload > end {
        return Err(Reason::Malformed);
    }
    Ok(Ip {
        protocol,
        hop_limit,
        header: offset,
        payload,
        end,
    })
}

#[inline(always)]
fn protocol_v6(next_header: u8) -> Option<Protocol> {
    if next_header == TCP {
        Some(Protocol::Tcp)
    } else if next_header == UDP {
        Some(Protocol::Udp)
    } else if next_header == IpProto::Ipv6Icmp as u8 {
        Some(Protocol::Icmp)
    } else {
        None
    }
}

/// Walks extension headers (RFC 8200 section 4) from `offset` to the first header that is none.
#[inline(always)]
pub(crate) fn extension_headers(
    packet: &Packet,
    first: u8,
    mut offset: usize,
) -> Result<(Protocol, usize), Reason> {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    let mut next_header = first;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let [next, len, a, b, ..]: [u8; 8] = match next_header {
            HOP_BY_HOP | DESTINATION | ROUTING | FRAGMENT => packet.read(offset).ok_or(Reason::Truncated)?,
            // Among others "no next header", and those that hide or protect the ports: ESP, AH.
            _ => return Err(Reason::OtherProtocol),
        };
        if next_header == FRAGMENT {
            const OFFSET: u16 = 0xfff8;
            if u16::from_be_bytes([a, b]) & OFFSET != 0 {
                return Err(Reason::Fragment);
            }
            offset += 8;
        } else {
            // While segments are left, the destination is a way-point and not whom the packet is for.
            if next_header == ROUTING && b != 0 {
                return Err(Reason::ExtensionHeaders);
            }
            offset += 8 * (len as usize + 1);
        }
        if let Some(protocol) = protocol_v6(next) {
            return Ok((protocol, offset));
        }
        next_header = next;
    }
    Err(Reason::ExtensionHeaders)
}

/// Where an IPv6 packet's fragment header stands; 0, where no header can stand, if it has none.
#[inline(always)]
pub(crate) fn fragment_header(packet: &Packet) -> usize {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    const NEXT_HEADER: usize = core::mem::offset_of!(Ipv6Hdr, next_hdr);
    let Some([mut kind]) = packet.read::<[u8; 1]>(EthHdr::LEN + NEXT_HEADER) else {
        return 0;
    };
    let mut at = EthHdr::LEN + Ipv6Hdr::LEN;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match kind {
            FRAGMENT => return at,
            HOP_BY_HOP | DESTINATION | ROUTING => {}
            _ => return 0,
        }
        let Some([next, len]) = packet.read::<[u8; 2]>(at) else {
            return 0;
        };
        kind = next;
        at += 8 * (len as usize + 1);
    }
    0
}

/// Reads the tuple of a TCP or UDP packet. `protocol` is [`TCP`] or [`UDP`].
#[inline(always)]
pub(crate) fn tuple<A: Family>(
    packet: &Packet,
    ip: &Ip,
    protocol: u8,
    tuple: &mut Tuple<A>,
) -> Result<(), Reason> {
    // The shorter of the two headers; that of TCP is checked once a service is found.
    if ip.payload_len() < UdpHdr::LEN {
        return Err(Reason::Malformed);
    }
    A::addresses(packet, ip.header, &mut tuple.src, &mut tuple.dst).ok_or(Reason::Internal)?;
    let [a, b, c, d] = packet.word(ip.payload).ok_or(Reason::Truncated)?.to_ne_bytes();
    tuple.src_port = NetPort(u16::from_ne_bytes([a, b]));
    tuple.dst_port = NetPort(u16::from_ne_bytes([c, d]));
    tuple.protocol = protocol;
    (tuple.pad, tuple.pad_end) = (0, 0);
    Ok(())
}

/// Checks a TCP header that is for us, and tells its flags.
#[inline(always)]
pub(crate) fn tcp(packet: &Packet, ip: &Ip) -> Result<TcpFlags, Reason> {
    let header: [u8; TcpHdr::LEN] = packet.read(ip.payload).ok_or(Reason::BadLength)?;
    let header_len = (header[12] >> 4) as usize * 4;
    if header_len < TcpHdr::LEN || header_len > ip.payload_len() {
        return Err(Reason::BadLength);
    }
    Ok(TcpFlags(header[13].into()))
}

/// Checks a UDP header that is for us. The length is that of the whole datagram, whose end may lie in other fragments.
/// Bytes between its end and that of the IP packet are allowed (RFC 9868).
#[inline(always)]
pub(crate) fn udp<A: Family>(packet: &Packet, ip: &Ip) -> Result<(), Reason> {
    let header: UdpHdr = packet.read(ip.payload).ok_or(Reason::BadLength)?;
    let len = u16::from_be_bytes(header.len) as usize;
    if len < UdpHdr::LEN || (len > ip.payload_len() && !A::is_fragment(packet, ip)) {
        return Err(Reason::BadLength);
    }
    Ok(())
}
