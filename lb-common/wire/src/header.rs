//! What the program knows about the headers of a packet.

use lb_common::service::{TCP, UDP};
use network_types::ip::IpProto;

/// What a frame carries.
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What an IP packet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
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
pub struct Ip {
    /// What it carries.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Where the header begins.
    pub header: usize,
    /// Where what it carries begins.
    pub payload: usize,
    /// Where the packet ends according to its header; padding of short frames follows.
    pub end: usize,
}

impl Ip {
    /// Bytes after the IP header and its options or extension headers.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        self.end.saturating_sub(self.payload)
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub fn packet_len(&self) -> usize {
        self.end - self.header
    }
}

/// The byte of a TCP header that has the flags (RFC 9293 section 3.1), or that there is none. As large as a reason, so that
/// no word of a `Result` of the two is ever unset: the compiler copies such words, and older verifiers refuse that.
#[derive(Clone, Copy)]
pub struct TcpFlags(u32);

/// Which fragments a header may be one of.
#[derive(Clone, Copy)]
pub enum Fragments {
    /// A first one: it has the ports.
    First,
    /// All.
    All,
}

impl Fragments {
    /// Bits of an IPv4 header's fragment word that must be clear: those of the offset.
    #[inline(always)]
    pub const fn refused_v4(self) -> u16 {
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
    pub const NONE: Self = Self(1 << 8);

    /// Closes this direction.
    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Opens a connection, or answers that together with ACK.
    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Ends the connection.
    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Acknowledges something.
    #[inline(always)]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether the packet opens a connection.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Whether the packet answers one that opens a connection.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// Whether the packet neither opens nor ends anything.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::SYN | Self::FIN | Self::RST) == 0
    }

    /// Whether they are those of a TCP segment.
    #[inline(always)]
    pub const fn are_some(self) -> bool {
        self.0 & Self::NONE.0 == 0
    }

    /// As a word, for calls that take no structures.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// The flags of [`Self::to_word`].
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// The protocol of a number in an IPv6 header; `None` for all others, extension headers among them.
#[inline(always)]
pub fn protocol_v6(next_header: u8) -> Option<Protocol> {
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
