//! Services whose address is a prefix: found by the longest prefix that a packet's destination lies in, once it is clear that
//! no service of that very address takes it.

use crate::{
    addr::{NetAddr, NetPort},
    plain_data,
    service::Service,
};

/// Key of a service whose address is a prefix: the kernel compares the first `bits` bits of what follows, and finds the longest
/// prefix (`Documentation/bpf/map_lpm_trie.rst`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServicePrefixKey {
    /// How many bits count; those of port and protocol always do.
    pub bits: u32,
    /// The service's port, or 0 for every port.
    pub port: NetPort,
    /// [`crate::service::TCP`] or [`crate::service::UDP`].
    pub protocol: u8,
    /// 1 in the entry that names one of a prefix's services whatever their ports; else 0.
    pub whatever_port: u8,
    /// The address; bits beyond the prefix are zero.
    pub address: NetAddr,
}

impl ServicePrefixKey {
    /// Bits before the address.
    const HEAD: u32 = 32;
    /// Bits of an address, IPv4 too: [`NetAddr`] has it as IPv6.
    pub const ADDRESS: u32 = 128;

    /// The key of a service. `bits` counts in the 128 of a [`NetAddr`]; port 0 is every port.
    #[inline(always)]
    pub const fn new(port: NetPort, protocol: u8, address: NetAddr, bits: u32) -> Self {
        Self {
            bits: Self::HEAD + bits,
            port,
            protocol,
            whatever_port: 0,
            address,
        }
    }

    /// The key of the entry that says whether a prefix has any service of a protocol.
    #[inline(always)]
    pub const fn whatever_port(protocol: u8, address: NetAddr, bits: u32) -> Self {
        Self {
            whatever_port: 1,
            ..Self::new(NetPort(0), protocol, address, bits)
        }
    }

    /// Bits of the prefix, in the 128 of its address.
    pub const fn address_bits(&self) -> u32 {
        self.bits.saturating_sub(Self::HEAD)
    }
}

/// Which of two services takes a packet whose destination lies in the prefixes of both, one with the packet's port and one with
/// every port: that of the longer prefix, and of one prefix that of the port.
#[inline(always)]
pub fn longest<T: AsRef<Service>>(with_port: Option<T>, with_every_port: Option<T>) -> Option<T> {
    match (with_port, with_every_port) {
        (Some(one), Some(every)) if every.as_ref().prefix_bits > one.as_ref().prefix_bits => Some(every),
        (Some(one), _) => Some(one),
        (None, every) => every,
    }
}

const _: () = assert!(size_of::<ServicePrefixKey>() == 24);

plain_data!(ServicePrefixKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_prefix_goes_before_the_port_and_the_port_before_every_port() {
        let of = |prefix_bits| Service {
            prefix_bits,
            ..Service::default()
        };
        let (long, short) = (of(28), of(24));
        for (with_port, with_every_port, expected) in [
            (None, None, None),
            (Some(short), None, Some(short)),
            (None, Some(short), Some(short)),
            (Some(short), Some(long), Some(long)),
            (Some(long), Some(short), Some(long)),
        ] {
            assert_eq!(longest(with_port, with_every_port), expected);
        }
        let every = Service { alias: 1, ..long };
        assert_eq!(longest(Some(long), Some(every)), Some(long));
    }
}
