//! The addresses of this machine.

use std::{collections::BTreeSet, net::IpAddr};

use crate::state::guard::Prefix;

/// The addresses of this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostAddresses(BTreeSet<IpAddr>);

impl HostAddresses {
    /// These addresses, beside those of the loopback networks.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether an address of the prefix is one of this machine's.
    pub fn has_any_of(&self, prefix: &Prefix) -> bool {
        self.is_own(prefix.address()) || self.0.iter().any(|own| prefix.contains(*own))
    }

    /// All of them, without those of the loopback networks.
    pub const fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.0
    }

    /// Whether packets to the address end here.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}
