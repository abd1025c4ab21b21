//! Services as the data plane sees them.

use crate::{
    addr::{NetPort, NetV4, NetV6},
    limits::MAX_SERVICES,
    plain_data,
};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Number of a service, stable while the service is programmed; index into the service counters.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// No service: out of the range of all maps.
    pub const NONE: Self = Self(u16::MAX);
}

/// Number of a ring; index into the map of rings.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct RingId(pub u16);

/// The services of an address, by their protocol: one of each, where there are several.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressServices {
    tcp: u16,
    udp: u16,
}

impl AddressServices {
    /// No service.
    pub const NONE: Self = Self {
        tcp: Self::NOBODY,
        udp: Self::NOBODY,
    };
    /// The number for no service: there are fewer services ([`MAX_SERVICES`]).
    const NOBODY: u16 = u16::MAX;

    /// A service of this IP protocol, if that is [`TCP`] or [`UDP`].
    #[inline(always)]
    pub const fn of(self, protocol: u8) -> Option<ServiceId> {
        match protocol {
            TCP => Self::some(self.tcp),
            UDP => Self::some(self.udp),
            _ => None,
        }
    }

    /// A service of any protocol.
    #[inline(always)]
    pub const fn any(self) -> Option<ServiceId> {
        Self::some(if self.tcp == Self::NOBODY {
            self.udp
        } else {
            self.tcp
        })
    }

    /// The same with another service of a protocol, or none.
    #[must_use]
    #[inline(always)]
    pub const fn with(self, protocol: u8, service: Option<ServiceId>) -> Self {
        let number = match service {
            Some(ServiceId(number)) => number,
            None => Self::NOBODY,
        };
        match protocol {
            TCP => Self { tcp: number, ..self },
            UDP => Self { udp: number, ..self },
            _ => self,
        }
    }

    #[inline(always)]
    const fn some(number: u16) -> Option<ServiceId> {
        if number == Self::NOBODY {
            return None;
        }
        Some(ServiceId(number))
    }
}

impl Default for AddressServices {
    fn default() -> Self {
        Self::NONE
    }
}

impl AsRef<Self> for Service {
    #[inline(always)]
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Key of an IPv4 service. Port 0 is the wildcard: every port that no other service has.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServiceKeyV4 {
    /// The service's address (VIP).
    pub address: NetV4,
    /// The service's port, or 0.
    pub port: NetPort,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Key of an IPv6 service, as [`ServiceKeyV4`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServiceKeyV6 {
    /// The service's address (VIP).
    pub address: NetV6,
    /// The service's port, or 0.
    pub port: NetPort,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Words of the filter that separates most packets from replies of backends of mode `dnat`.
pub const FILTER_WORDS: u32 = (1 << SPREAD_BITS) / u64::BITS;
/// Bits of the number that a key is spread to. With as many services as there may be, one key in sixteen meets another's.
pub(crate) const SPREAD_BITS: u32 = 16;

/// Spreads the parts of a key over numbers of [`SPREAD_BITS`] (Fibonacci hashing).
#[inline(always)]
pub(crate) const fn spread(high: u64, low: u64, rest: u64) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (high.rotate_left(31) ^ low ^ (rest << 40)).wrapping_mul(MULTIPLIER);
    (mixed >> (u64::BITS - SPREAD_BITS)) as u32
}

/// A bit of the filter: set if an endpoint may have a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FilterBit(u32);

impl FilterBit {
    /// Its word, below [`FILTER_WORDS`].
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0 / u64::BITS
    }

    /// The word with this bit alone.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        1 << (self.0 % u64::BITS)
    }
}

#[inline(always)]
pub(crate) const fn join(first: u32, second: u32) -> u64 {
    first as u64 | ((second as u64) << u32::BITS)
}

impl ServiceKeyV4 {
    /// Its bit in the filter.
    #[inline(always)]
    pub const fn filter_bit(&self) -> FilterBit {
        FilterBit(self.spread())
    }

    #[inline(always)]
    pub(crate) const fn spread(&self) -> u32 {
        let rest = self.port.0 as u64 | (self.protocol as u64) << 16;
        spread(0, self.address.0 as u64, rest)
    }
}

impl ServiceKeyV6 {
    /// Its bit in the filter.
    #[inline(always)]
    pub const fn filter_bit(&self) -> FilterBit {
        FilterBit(self.spread())
    }

    #[inline(always)]
    pub(crate) const fn spread(&self) -> u32 {
        let [a, b, c, d] = self.address.0;
        let rest = self.port.0 as u64 | (self.protocol as u64) << 16;
        spread(join(a, b), join(c, d), rest)
    }
}

/// How packets of a service reach its backend.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Full NAT: destination to the backend, source to an address and port of the balancer.
    Nat = 1,
    /// Destination NAT only; replies return through the balancer by the backend's route.
    Dnat = 2,
    /// Destination MAC only; the backend holds the VIP and answers the client itself.
    L2dsr = 3,
    /// An outer IPv4 or IPv6 header.
    Ipip = 4,
    /// An outer UDP header with Generic UDP Encapsulation.
    Gue = 5,
}

impl Mode {
    /// The mode of a stored number; `None` where no mode has it.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Nat),
            2 => Some(Self::Dnat),
            3 => Some(Self::L2dsr),
            4 => Some(Self::Ipip),
            5 => Some(Self::Gue),
            _ => None,
        }
    }
}

/// The action for packets of a service without backends.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnEmpty {
    /// Dropped.
    Drop = 1,
    /// Answered with a TCP reset or an ICMP unreachable.
    Reject = 2,
}

/// Some backend is of mode [`Mode::Nat`]: packets are looked up in the flow table.
pub const TRANSLATES: u16 = 1 << 0;
/// Some backend is of another mode.
pub const FORWARDS: u16 = 1 << 1;
/// Every flow is recorded, whatever its slot.
pub const TRACKS_ALL: u16 = 1 << 2;
/// The client's address alone decides about the slot.
pub const BY_SOURCE: u16 = 1 << 3;
/// New flows take the slots in turn, independent of their hash. Set only if every flow is recorded.
pub const IN_TURN: u16 = 1 << 4;
/// Clients are looked up among the prefixes of [`crate::guard`].
pub const GUARDS_CLIENTS: u16 = 1 << 5;
/// Connection ids of QUIC may name the backend: [`crate::quic`]. Set for services of UDP alone.
pub const QUIC: u16 = 1 << 6;
/// New flows have a budget, see [`crate::guard`].
pub const GUARDS_FLOWS: u16 = 1 << 7;
/// The service has every port of an address of this machine, whose own sockets take precedence: packets that one of
/// them expects pass.
pub const SHARES_ADDRESS: u16 = 1 << 8;
/// The destination port alone decides about the slot.
pub const BY_PORT: u16 = 1 << 9;

/// Some clients have a ring of their own: [`crate::clients`].
pub const BY_CLIENTS: u16 = 1 << 10;

/// Value of a service. Replaced as a whole (hash map), so a packet sees the old one or the new one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Slots of the ring; 0 while no backend can take new flows.
    pub ring_size: u32,
    /// The ring, valid while `ring_size` is not 0. A ring of another size gets another id, so size and ring agree.
    pub ring: RingId,
    /// The service's number.
    pub id: ServiceId,
    /// A [`Mode`]; a backend's own mode overrides it.
    pub mode: u8,
    /// An [`OnEmpty`].
    pub on_empty: u8,
    /// Bits: [`TRANSLATES`], [`FORWARDS`], [`TRACKS_ALL`], [`BY_SOURCE`], [`IN_TURN`], [`GUARDS_CLIENTS`],
    /// [`QUIC`], [`GUARDS_FLOWS`], [`SHARES_ADDRESS`], [`BY_PORT`], [`BY_CLIENTS`].
    pub flags: u16,
    /// 1 in the record of a further port of a service with several; 0 in the record of its own key. For daemons only:
    /// the program treats both the same.
    pub alias: u8,
    /// Where the service's address is a prefix, how many of its bits count; else 0.
    pub prefix_bits: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl Service {
    /// Whether all bits of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Whether any bit of `flags` is set.
    #[inline(always)]
    pub const fn has_any(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Whether it is a service, and not the record of none.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.mode != 0
    }
}

const _: () = assert!(MAX_SERVICES < AddressServices::NOBODY as u32);
const _: () = assert!(size_of::<AddressServices>() == 4);
const _: () = assert!(size_of::<ServiceKeyV4>() == 8);
const _: () = assert!(size_of::<ServiceKeyV6>() == 20);
const _: () = assert!(size_of::<Service>() == 16);

plain_data!(
    ServiceId,
    RingId,
    AddressServices,
    ServiceKeyV4,
    ServiceKeyV6,
    Service
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn services_and_packets_that_differ_a_little_have_different_bits() {
        let v4 = (0..4).flat_map(|host| (0..1000).map(move |port| (host, port)));
        let bits: BTreeSet<(u32, u64)> = v4
            .map(|(host, port)| {
                let key = ServiceKeyV4 {
                    address: NetV4::from(std::net::Ipv4Addr::new(192, 0, 2, host)),
                    port: NetPort::new(port),
                    protocol: TCP,
                    pad: 0,
                };
                (key.filter_bit().word(), key.filter_bit().mask())
            })
            .collect();
        // Of 4,000 random bits of 65,536, some 118 fall together.
        assert!(bits.len() > 3_700, "{} bits for 4000 keys", bits.len());
        assert!(bits.iter().all(|(word, _)| *word < FILTER_WORDS));
    }
}
