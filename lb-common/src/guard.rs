//! The guard of a service: which clients may send to it.
//!
//! A service that is not guarded says so in its record ([`crate::service::GUARDS_CLIENTS`]), and none of this is looked at.

use crate::{addr::NetAddr, plain_data, service::ServiceId};

/// Such clients may send.
pub const ALLOW: u32 = 1;
/// Such clients may not.
pub const DENY: u32 = 2;

/// Key of a prefix of clients' addresses: the kernel compares the first `bits` bits of what follows, and finds the longest
/// prefix (`Documentation/bpf/map_lpm_trie.rst`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct PrefixKey {
    /// How many bits count.
    pub bits: u32,
    /// The service, whose bits always count.
    pub service: ServiceId,
    /// Zero.
    pub pad: u16,
    /// The address; bits beyond the prefix are zero.
    pub address: NetAddr,
}

impl PrefixKey {
    /// Bits before the address.
    const HEAD: u32 = 32;
    /// Bits of an address, IPv4 too: [`NetAddr`] has it as IPv6.
    pub const ADDRESS: u32 = 128;

    /// The key of a prefix. `bits` counts in the 128 of a [`NetAddr`]; 0 is every client of the service.
    #[inline(always)]
    pub const fn new(service: ServiceId, address: NetAddr, bits: u32) -> Self {
        Self {
            bits: Self::HEAD + bits,
            service,
            pad: 0,
            address,
        }
    }
}

const _: () = assert!(size_of::<PrefixKey>() == 24);

plain_data!(PrefixKey);
