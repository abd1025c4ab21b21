//! Backends as the data plane sees them.

use crate::{
    addr::{NetAddr, NetPort},
    plain_data,
    service::ServiceId,
    vlan::Vlans,
};

/// Number of a backend: index into the backend map and its counters. 0 means "none".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct BackendId(pub u16);

impl BackendId {
    /// No backend: what an unset slot holds.
    pub const NONE: Self = Self(0);
}

/// How often a backend id has been given out. A flow remembers it, so that an id in new hands never catches an old
/// flow.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Generation(pub u16);

impl Generation {
    /// The one that follows; they come round after 65,536.
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
/// `next_hop_mac`, `source_mac`, `ifindex` and `vlans` are current. Without it the program asks the kernel's routes.
pub const RESOLVED: u16 = 1 << 3;
/// Where in the flags a number stands instead of a bit: the tenths of its weight that a slow start holds back from the
/// backend. For daemons alone: the next one goes on from there.
pub const HELD_BACK_SHIFT: u32 = 12;

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
    /// Source address for NAT when no list of source addresses is configured, and for outer headers: what the
    /// kernel's route to the backend prefers.
    pub source: NetAddr,
    /// MAC address of the next hop towards the backend.
    pub next_hop_mac: [u8; 6],
    /// MAC address of the interface towards it.
    pub source_mac: [u8; 6],
    /// Index of the interface towards it.
    pub ifindex: u32,
    /// Port packets go to; 0 keeps the packet's own (wildcard services).
    pub port: NetPort,
    /// Bits: [`IN_USE`], [`ALIVE`], [`IPV6`], [`RESOLVED`]; and from [`HELD_BACK_SHIFT`] on a number.
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
