//! The addresses of this machine.

use std::{collections::BTreeSet, net::IpAddr};

/// The addresses of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostAddresses(BTreeSet<IpAddr>);

impl HostAddresses {
    /// These addresses, beside those of the loopback networks.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether packets to the address end here.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}
