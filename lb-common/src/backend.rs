//! Backends as the data plane sees them.

use crate::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    plain_data,
    service::ServiceId,
    vlan::Vlans,
};

/// Number of a backend: index into the backend map and its counters. 0 means "none".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct BackendId(pub u16);

impl BackendId {
    /// No backend: the value of an unset slot.
    pub const NONE: Self = Self(0);
}

/// How often a backend id has been given out. A flow remembers it, so that an id in new hands never catches an old
/// flow.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Generation(pub u16);

impl Generation {
    /// The next generation; they wrap around after 65,536.
    #[inline(always)]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The id is in use. A record without it is free.
pub const IN_USE: u16 = 1 << 0;
/// Recorded flows may go to this backend. Cleared when it is down and the service moves its flows, and on removal.
pub const ALIVE: u16 = 1 << 1;
/// Address, source and port are IPv6.
pub const IPV6: u16 = 1 << 2;
/// `next_hop_mac`, `source_mac`, `ifindex` and `vlans` are current. Without it the program looks up the kernel's
/// routes.
pub const RESOLVED: u16 = 1 << 3;
/// Position of a number in the flags: the tenths of the weight that slow start withholds from the backend. For daemons
/// only: the next daemon continues from it.
pub const HELD_BACK_SHIFT: u32 = 12;

/// Where in the flags another number stands: how many low bits of `source` the hash of a flow fills in outer headers, from
/// 0 (all flows share one source) to [`MAX_SOURCE_BITS`].
const SOURCE_BITS_SHIFT: u32 = 6;
/// The bits of that number.
const SOURCE_BITS: u16 = 0x3f << SOURCE_BITS_SHIFT;
/// As many as a flow's hash has.
pub const MAX_SOURCE_BITS: u8 = 32;
const _: () = assert!(SOURCE_BITS >> HELD_BACK_SHIFT == 0);

/// Parts of a weight that a slow start gives one after the other.
pub const TENTHS: u8 = 10;
const _: () = assert!((TENTHS as u16) << HELD_BACK_SHIFT >> HELD_BACK_SHIFT == TENTHS as u16);

/// Value of a backend (array map, so updates are not atomic: fields that packets use together change only while
/// [`RESOLVED`] is clear and no program run that saw it set is still under way; identity never changes within one
/// generation).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// Where packets go.
    pub address: NetAddr,
    /// Source address for NAT when no list of source addresses is configured, and for outer headers: the one that the
    /// kernel's route to the backend prefers. For tunnels with a source for each flow, the prefix of the sources, see
    /// [`Self::source_bits`].
    pub source: NetAddr,
    /// MAC address of the next hop towards the backend.
    pub next_hop_mac: [u8; 6],
    /// MAC address of the interface towards it.
    pub source_mac: [u8; 6],
    /// Index of the interface towards it.
    pub ifindex: u32,
    /// Port packets go to; 0 keeps the packet's own (wildcard services).
    pub port: NetPort,
    /// Bits: [`IN_USE`], [`ALIVE`], [`IPV6`], [`RESOLVED`]; and two numbers, see [`Self::source_bits`] and
    /// [`Self::held_back`].
    pub flags: u16,
    /// How often the id has been given out.
    pub generation: Generation,
    /// The service this backend belongs to.
    pub service: ServiceId,
    /// Largest IP packet, in bytes, that the way to the backend takes; 0 where unknown.
    pub mtu: u16,
    /// A [`crate::service::Mode`].
    pub mode: u8,
    /// IP protocol of the service: [`crate::service::TCP`] or [`crate::service::UDP`].
    pub protocol: u8,
    /// VLANs of the interface towards it.
    pub vlans: Vlans,
}

impl Backend {
    /// Whether all bits of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// How many low bits of the outer source the hash of a flow fills.
    #[inline(always)]
    pub const fn source_bits(&self) -> u8 {
        ((self.flags & SOURCE_BITS) >> SOURCE_BITS_SHIFT) as u8
    }

    /// The same record with another number of them, [`MAX_SOURCE_BITS`] at most.
    #[must_use]
    pub const fn with_source_bits(mut self, bits: u8) -> Self {
        self.flags &= !SOURCE_BITS;
        self.flags |= (bits as u16) << SOURCE_BITS_SHIFT & SOURCE_BITS;
        self
    }

    /// The outer IPv4 source of the flow with this hash. The low bits of a hash do not affect the slot, so the flows of
    /// each backend use all addresses.
    #[inline(always)]
    pub const fn outer_source_v4(&self, hash: u32) -> NetV4 {
        NetV4(self.source.v4().0 | self.source_entropy(hash))
    }

    /// As [`Self::outer_source_v4`], for IPv6.
    #[inline(always)]
    pub const fn outer_source_v6(&self, hash: u32) -> NetV6 {
        let [a, b, c, d] = self.source.v6().0;
        NetV6([a, b, c, d | self.source_entropy(hash)])
    }

    /// The bits of a hash that go into the last word of an outer source, in network byte order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a mask of 32 bits at most")]
    pub const fn source_entropy(&self, hash: u32) -> u32 {
        let mask = (1_u64 << self.source_bits()) - 1;
        (hash & mask as u32).to_be()
    }

    /// Tenths of its weight that a slow start holds back.
    pub const fn held_back(&self) -> u8 {
        (self.flags >> HELD_BACK_SHIFT) as u8
    }

    /// The same record with another number of tenths held back.
    #[must_use]
    pub const fn with_held_back(mut self, tenths: u8) -> Self {
        self.flags &= (1 << HELD_BACK_SHIFT) - 1;
        self.flags |= (tenths as u16) << HELD_BACK_SHIFT;
        self
    }
}

const _: () = assert!(size_of::<Backend>() == 64, "one cache line");

plain_data!(BackendId, Generation, Backend);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;

    #[test]
    fn outer_sources_stay_in_their_prefix_and_fill_it() {
        for (prefix, bits, last) in [
            ("10.1.2.0", 0, "10.1.2.0"),
            ("10.1.2.0", 8, "10.1.2.255"),
            ("10.1.0.0", 16, "10.1.255.255"),
            ("0.0.0.0", 32, "255.255.255.255"),
            ("2001:db8::", 16, "2001:db8::ffff"),
            ("2001:db8::", 32, "2001:db8::ffff:ffff"),
        ] {
            let [first, last] = [prefix, last].map(|text| text.parse::<IpAddr>().unwrap());
            let backend = Backend {
                source: first.into(),
                flags: IN_USE | ALIVE,
                ..Backend::default()
            };
            let backend = backend.with_source_bits(bits).with_held_back(7);
            assert_eq!((backend.source_bits(), backend.held_back()), (bits, 7));
            assert!(backend.has(IN_USE | ALIVE) && !backend.has(IPV6) && !backend.has(RESOLVED));
            let source = |hash| match first {
                IpAddr::V4(_) => IpAddr::V4(backend.outer_source_v4(hash).to_std()),
                IpAddr::V6(_) => IpAddr::V6(backend.outer_source_v6(hash).to_std()),
            };
            assert_eq!((source(0), source(u32::MAX)), (first, last));
            let sources: BTreeSet<IpAddr> = (0..1 << 16).map(source).collect();
            assert_eq!(sources.len(), 1 << bits.min(16));
            assert_eq!(backend.with_source_bits(0).source_bits(), 0);
        }
    }
}
