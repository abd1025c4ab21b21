//! How checks through the VIP enter the forwarding path. Checks leave the daemon by one end of a pair of interfaces,
//! towards an unused address. At the other end a program takes each frame, rewrites it as a packet of a client of the
//! service, and sends it to the checked backend by the functions that send clients' packets. The destination port is
//! the number of that backend.
//!
//! The program records a NAT flow of the check, from this machine's address to the service's, so that answers return
//! like any flow's. All addresses here are link-local (RFC 3927, RFC 4291 section 2.5.6): they never leave the pair of
//! interfaces.

use crate::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    backend::{BackendId, Generation},
    flow::Tuple,
    plain_data,
    service::ServiceId,
};

/// The address of each family that checks come from.
pub trait Ends: Copy + PartialEq + 'static {
    /// Where checks come from: an address of this machine.
    const NEAR: Self;
    /// Their destination: an unused address.
    const FAR: Self;
}

impl Ends for NetV4 {
    // 169.254.76.66 and 169.254.76.65: "LB" and "LA".
    const NEAR: Self = Self(u32::from_be_bytes([169, 254, 76, 66]).to_be());
    const FAR: Self = Self(u32::from_be_bytes([169, 254, 76, 65]).to_be());
}

impl Ends for NetV6 {
    const NEAR: Self = Self([0xfe80_0000_u32.to_be(), 0, 0, 0x4c42_u32.to_be()]);
    const FAR: Self = Self([0xfe80_0000_u32.to_be(), 0, 0, 0x4c41_u32.to_be()]);
}

/// Bits of the prefix that both addresses of a family share.
pub const PREFIX_V4: u8 = 30;
/// See [`PREFIX_V4`].
pub const PREFIX_V6: u8 = 64;

/// Whether packets with this tuple belong to a check.
#[inline(always)]
pub fn is_check<A: Ends>(tuple: &Tuple<A>) -> bool {
    tuple.dst == A::FAR
}

/// Entries of the map of checks at most: one for each backend.
pub const MAX_CHECKS: u32 = crate::limits::MAX_BACKENDS;

/// The service of answers to checks in the flow table: none, so that no counter includes them.
pub const NO_SERVICE: ServiceId = ServiceId(u16::MAX);
/// The backend of answers to checks in the flow table. See [`NO_SERVICE`].
pub const NO_BACKEND: BackendId = BackendId::NONE;

/// The service's address is IPv6.
pub const IPV6: u32 = 1;

/// A backend that is checked through the path, by its number.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCheck {
    /// The service's address.
    pub vip: NetAddr,
    /// The source address of the check, of the service's family; unspecified if the backend's record has it.
    pub source: NetAddr,
    /// The port that is checked, at the service's address.
    pub port: NetPort,
    /// Generation of the backend's number.
    pub generation: Generation,
    /// [`IPV6`] or 0.
    pub flags: u32,
}

const _: () = assert!(size_of::<PathCheck>() == 40);
const _: () = assert!(
    NO_SERVICE.0 as u32 >= crate::limits::MAX_SERVICES,
    "no service has this number"
);

plain_data!(PathCheck);

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Packets would leave the machine otherwise, or not reach the program.
    #[test]
    fn both_ends_are_link_local_and_on_one_prefix() {
        let [near, far] = [NetV4::NEAR.to_std(), NetV4::FAR.to_std()];
        let network = |address: Ipv4Addr| address.to_bits() >> (32 - PREFIX_V4);
        assert!(near.is_link_local() && near != far && network(near) == network(far));
        // Neither the network's own address nor its broadcast.
        for address in [near, far] {
            assert!((1..=2).contains(&(address.to_bits() & 3)), "{address}");
        }
        let [near, far] = [NetV6::NEAR.to_std(), NetV6::FAR.to_std()];
        let network = |address: Ipv6Addr| address.to_bits() >> (128 - PREFIX_V6);
        assert!(near.is_unicast_link_local() && near != far && network(near) == network(far));
    }
}
