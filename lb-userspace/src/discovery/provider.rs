//! Sources of addresses.

use std::{collections::BTreeSet, future::Future, net::IpAddr, time::Duration};

use lb_common::service::Mode;

use crate::state::{
    hosts::{HostBackend, HostName},
    service::Service,
};

/// The address families to look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Families {
    /// A records.
    pub v4: bool,
    /// AAAA records.
    pub v6: bool,
}

impl Families {
    /// The families that backends of a host can have: tunnels carry either family, other modes only the service's.
    pub fn of(service: &Service, host: &HostBackend) -> Self {
        let v4 = service.key.address.is_ipv4();
        match host.mode.unwrap_or(service.mode) {
            Mode::Nat | Mode::Dnat | Mode::L2dsr => Self { v4, v6: !v4 },
            Mode::Ipip | Mode::Gue => Self { v4: true, v6: true },
        }
    }
}

/// The answer of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The addresses; at least one.
    pub addresses: BTreeSet<IpAddr>,
    /// How long it holds.
    pub lifetime: Duration,
}

/// A source of addresses.
pub trait Provider: Clone + Send + Sync + 'static {
    /// Looks a name up, within [`LOOKUP_TIMEOUT`](super::LOOKUP_TIMEOUT).
    ///
    /// # Errors
    /// Why there is no address, in words. The last answer then stays in force.
    fn look_up(
        &self,
        host: &HostName,
        families: Families,
    ) -> impl Future<Output = Result<Answer, String>> + Send;
}
