//! ACLs and rate limits of a service: which clients may send to it, and how many flows may begin. Flags in the
//! service's record ([`crate::service::GUARDS_CLIENTS`], [`crate::service::GUARDS_FLOWS`]) turn them on; without the
//! flags nothing here is read.

use crate::{addr::NetAddr, budget::Budget, plain_data, service::ServiceId};

/// Such clients may send.
pub const ALLOW: u32 = 1;
/// Such clients may not.
pub const DENY: u32 = 2;

/// Key of a prefix of clients' addresses: the kernel compares the first `bits` bits of the fields that follow, and
/// finds the longest prefix (`Documentation/bpf/map_lpm_trie.rst`).
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

    /// How many bits of the address count, of the 128 of a [`NetAddr`].
    pub const fn address_bits(&self) -> u32 {
        self.bits.saturating_sub(Self::HEAD)
    }
}

/// Budgets of a service's new flows, by the service's id. An array's value, which changes word by word: a packet in between
/// meets a rate, or a burst, that was or will be.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowGuard {
    /// Of all new flows.
    pub all: Budget,
    /// Of the new flows of each source.
    pub of_source: Budget,
    /// Bits of a client's address that make it a source.
    pub source_mask: NetAddr,
    /// Zero.
    pub pad: [u64; 2],
}

/// Key of a source's bucket.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SourceKey {
    /// The client's address under [`FlowGuard::source_mask`].
    pub address: NetAddr,
    /// The service: its sources are its own.
    pub service: ServiceId,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<PrefixKey>() == 24);
const _: () = assert!(size_of::<FlowGuard>() == 64, "one cache line");
const _: () = assert!(size_of::<SourceKey>() == 20);

plain_data!(PrefixKey, FlowGuard, SourceKey);
