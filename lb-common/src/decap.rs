//! The end of a tunnel: definitions shared by its programs and those who load them. The balancer has a map of [`EndKey`]; all
//! other names are those of the program of `lb decap`.

use crate::{
    addr::NetAddr,
    plain_data,
    reason::Reason,
    tunnel::{IPV4_IN_IP, IPV6_IN_IP},
};

/// Key of a prefix that tunnels may come from, or of an address of this machine at which they end: the kernel compares the first
/// `bits` bits of the other fields (`Documentation/bpf/map_lpm_trie.rst`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct EndKey {
    /// Bits that count.
    pub bits: u32,
    /// [`V4`] or [`V6`]: a source of tunnels over that family. [`Self::END`]: an address at which they end.
    pub kind: u32,
    /// The address; bits beyond the prefix are zero.
    pub address: NetAddr,
}

impl EndKey {
    /// An address of this machine.
    pub const END: u8 = 1;
    /// Bits before the address.
    const HEAD: u32 = 32;
    /// Bits of an address, IPv4 too: [`NetAddr`] has it as IPv6.
    pub const ADDRESS: u32 = 128;

    /// The key of a kind. `bits`: of the 128 of a [`NetAddr`].
    #[inline(always)]
    pub const fn new(kind: u8, address: NetAddr, bits: u32) -> Self {
        Self {
            bits: Self::HEAD + bits,
            kind: kind as u32,
            address,
        }
    }
}

const _: () = assert!(size_of::<EndKey>() == 24);

plain_data!(EndKey);

/// Prefixes that tunnels may come from, to [`ALLOWED`], with IPv4 addresses mapped into IPv6: their prefixes have 96
/// bits more, and an IPv6 prefix may contain all of them. Written by the command.
pub const SOURCES: &str = "SOURCES";
/// Addresses that tunnels end at, to [`ALLOWED`]. Written by the command.
pub const ADDRESSES: &str = "ADDRESSES";
/// The UDP port that GUE packets come to, a `u16`: set when the program is loaded.
pub const PORT: &str = "GUE_PORT";
/// Packets by [`Outcome`], per CPU.
pub const OUTCOMES: &str = "OUTCOMES";

/// A source of IPv4, for packets over IPv4 alone.
pub const V4: u8 = 4;
/// A source of IPv6.
pub const V6: u8 = 6;
/// Value of an allowed prefix.
pub const ALLOWED: u8 = 1;

/// Prefixes and addresses at most.
pub const MAX_ENTRIES: u32 = 1024;

/// Which tunnels end at a machine.
pub trait Tables {
    /// The port of GUE.
    fn gue_port(&self) -> u16;
    /// Whether tunnels end at an address.
    fn is_end(&self, address: &NetAddr) -> bool;
    /// Whether tunnels over a family, [`V4`] or [`V6`], may come from an address.
    fn is_source(&self, family: u8, address: &NetAddr) -> bool;
}

/// What an outer header carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// An IP packet at once, or something else, by its protocol number.
    Protocol(u8),
    /// A UDP datagram to a port.
    Udp(u16),
}

/// Whether a tunnel ends at this machine, by its outer header: the order of decisions of the programs, and of those who explain them.
///
/// # Errors
/// [`Outcome::Passed`] for a packet that is not a tunnel to this machine, [`Outcome::UnknownSource`] for one from elsewhere.
#[inline(always)]
pub fn admit(
    tables: &impl Tables,
    carries: Carries,
    family: u8,
    source: &NetAddr,
    destination: &NetAddr,
) -> Result<(), Outcome> {
    let is_tunnel = match carries {
        Carries::Protocol(number) => number == IPV4_IN_IP || number == IPV6_IN_IP,
        Carries::Udp(port) => port == tables.gue_port(),
    };
    if !is_tunnel || !tables.is_end(destination) {
        return Err(Outcome::Passed);
    }
    if !tables.is_source(family, source) {
        return Err(Outcome::UnknownSource);
    }
    Ok(())
}

/// The outcome of a packet.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Not a tunnel to this machine; passed on untouched.
    Passed = 0,
    /// Freed of its outer header and passed on.
    Decapsulated = 1,
    /// Dropped: not from a balancer.
    UnknownSource = 2,
    /// Dropped: no whole packet within.
    Malformed = 3,
    /// Dropped: the outer header marks congestion, but the sender does not support ECN (RFC 6040 section 4.2).
    Congestion = 4,
    /// Dropped: the frame could not be shortened.
    Failed = 5,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Decapsulated,
        Self::UnknownSource,
        Self::Malformed,
        Self::Congestion,
        Self::Failed,
    ];

    /// The reason for which the balancer counts a packet whose outer header is UDP, or not; `None`: it goes on, with or without that
    /// header. UDP from elsewhere does: what comes to the port of GUE may be a datagram of a service or flow.
    #[inline(always)]
    pub const fn reason(self, is_udp: bool) -> Option<Reason> {
        match self {
            Self::UnknownSource if !is_udp => Some(Reason::TunnelSource),
            Self::Passed | Self::Decapsulated | Self::UnknownSource => None,
            Self::Malformed | Self::Congestion => Some(Reason::TunnelMalformed),
            Self::Failed => Some(Reason::Internal),
        }
    }

    /// Name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Decapsulated => "decapsulated",
            Self::UnknownSource => "unknown_source",
            Self::Malformed => "malformed",
            Self::Congestion => "congestion",
            Self::Failed => "failed",
        }
    }
}
