//! What a walk needs of the addresses of each family.

use std::net::IpAddr;

use lb_common::{
    addr::{NetV4, NetV6},
    check::Ends,
    flow::Tuple,
    hash::HashBy,
};

/// The address of a family.
pub(super) trait Address: Ends {
    /// As the standard library has it.
    fn ip(self) -> IpAddr;
    /// The hash that selects the slot of a tuple.
    fn hash(tuple: &Tuple<Self>, by: HashBy) -> u32;
}

impl Address for NetV4 {
    fn ip(self) -> IpAddr {
        self.to_std().into()
    }
    fn hash(tuple: &Tuple<Self>, by: HashBy) -> u32 {
        by.hash_v4(tuple)
    }
}

impl Address for NetV6 {
    fn ip(self) -> IpAddr {
        self.to_std().into()
    }
    fn hash(tuple: &Tuple<Self>, by: HashBy) -> u32 {
        by.hash_v6(tuple)
    }
}
