//! The flow hash that picks a ring slot. Every balancer with the same rings must compute the same value, so it has
//! no per-node seed.

use crate::{
    addr::{NetPort, NetV4, NetV6},
    flow::Tuple,
    service::{BY_PORT, BY_SOURCE, Service},
};

/// The part of a tuple that selects its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashBy {
    /// All of it.
    Tuple,
    /// The client's address.
    Source,
    /// The destination port.
    Port,
}

impl HashBy {
    /// The part that selects the slot for packets of a service.
    #[inline(always)]
    pub const fn of(service: &Service) -> Self {
        if service.has(BY_SOURCE) {
            Self::Source
        } else if service.has(BY_PORT) {
            Self::Port
        } else {
            Self::Tuple
        }
    }

    /// The hash that selects the slot of an IPv4 tuple.
    pub const fn hash_v4(self, tuple: &Tuple<NetV4>) -> u32 {
        match self {
            Self::Tuple => tuple_v4(tuple),
            Self::Source => source_v4(tuple),
            Self::Port => port(tuple.dst_port),
        }
    }

    /// As [`Self::hash_v4`], of IPv6.
    pub const fn hash_v6(self, tuple: &Tuple<NetV6>) -> u32 {
        match self {
            Self::Tuple => tuple_v6(tuple),
            Self::Source => source_v6(tuple),
            Self::Port => port(tuple.dst_port),
        }
    }
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One round: spreads the bits of `value` over the whole state (xor, odd multiply, xor-shift: a bijection of the state).
#[inline(always)]
const fn mix(state: u64, value: u64) -> u64 {
    let product = (state ^ value).wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

/// Final rounds of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[inline(always)]
const fn finish(mut state: u64) -> u32 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state >> 32) as u32
}

#[inline(always)]
const fn ports<A: Copy>(tuple: &Tuple<A>) -> u64 {
    ((tuple.src_port.0 as u64) << 32) | ((tuple.dst_port.0 as u64) << 16) | tuple.protocol as u64
}

/// Hash of an IPv4 tuple, 32 bits.
#[inline(always)]
pub const fn tuple_v4(tuple: &Tuple<NetV4>) -> u32 {
    let addresses = ((tuple.src.0 as u64) << 32) | tuple.dst.0 as u64;
    finish(mix(mix(0, addresses), ports(tuple)))
}

/// Hash of an IPv6 tuple, 32 bits.
#[inline(always)]
pub const fn tuple_v6(tuple: &Tuple<NetV6>) -> u32 {
    let [a, b, c, d] = tuple.src.0;
    let [e, f, g, h] = tuple.dst.0;
    let mut state = mix(0, ((a as u64) << 32) | b as u64);
    state = mix(state, ((c as u64) << 32) | d as u64);
    state = mix(state, ((e as u64) << 32) | f as u64);
    state = mix(state, ((g as u64) << 32) | h as u64);
    finish(mix(state, ports(tuple)))
}

/// Hash of an IPv4 tuple's source address, 32 bits: the same for all flows of a client.
#[inline(always)]
pub const fn source_v4(tuple: &Tuple<NetV4>) -> u32 {
    finish(mix(0, tuple.src.0 as u64))
}

/// As [`source_v4`], of IPv6.
#[inline(always)]
pub const fn source_v6(tuple: &Tuple<NetV6>) -> u32 {
    let [a, b, c, d] = tuple.src.0;
    let state = mix(0, ((a as u64) << 32) | b as u64);
    finish(mix(state, ((c as u64) << 32) | d as u64))
}

/// Hash of a port, 32 bits: the same for all flows to it, of both families and protocols.
#[inline(always)]
pub const fn port(port: NetPort) -> u32 {
    finish(mix(0, port.get() as u64))
}
