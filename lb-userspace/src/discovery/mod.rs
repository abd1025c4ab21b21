//! Backends by host name: looks names up while the daemon runs, and applies their addresses as backends. `Board`
//! decides when to look a name up and how an answer changes the desired state; it gets the time passed in. `task` asks
//! a [`Provider`]; the resolver of this machine is one, and others (files, HTTP) fit the same trait. A source that
//! fails or has no answer changes nothing.

mod board;
mod resolver;
mod task;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_common::service::Mode;

pub use self::{resolver::SystemResolver, task::run};
use crate::state::{
    discovered::LeftOut,
    hosts::{HostBackend, HostName},
    names::{BackendName, ServiceName},
    service::Service,
};

/// Shortest time between two look-ups of a name, for any lifetime (TTL) of its records.
pub const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest time between two look-ups of a name, for any lifetime (TTL) of its records.
pub const ASK_AGAIN_MAX: Duration = Duration::from_secs(300);
/// Longest time after a look-up that failed until the next one; the first comes after [`ASK_AGAIN_MIN`].
pub const FAILED_MAX: Duration = Duration::from_secs(30);
/// Time for which changes are gathered before they are put in force.
pub const GATHER: Duration = Duration::from_secs(1);
/// Shortest time between two changes that names make, and so between their revisions.
pub const SPACING: Duration = Duration::from_secs(2);
/// Time after which a change that was refused is tried again.
pub const RETRY: Duration = Duration::from_secs(10);
/// Addresses of one name that are used; others are left out.
pub const MAX_ADDRESSES: usize = 1_000;
/// Look-ups at once; further names wait.
pub const MAX_LOOKUPS: usize = 64;
/// Time for one look-up with all its retries.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);

/// A host name of a service: names of the service and of the `[[service.backend]]` table.
pub type HostId = (ServiceName, BackendName);

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
    /// Looks a name up, within [`LOOKUP_TIMEOUT`].
    ///
    /// # Errors
    /// Why there is no address, in words. The last answer then stays in force.
    fn look_up(
        &self,
        host: &HostName,
        families: Families,
    ) -> impl Future<Output = Result<Answer, String>> + Send;
}

/// How a host name does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostStatus {
    /// Whether it was ever answered by this daemon.
    pub answered: bool,
    /// Why the latest look-up failed, and since when look-ups fail.
    pub failure: Option<(String, SystemTime)>,
    /// Addresses that are no backends.
    pub left_out: Vec<LeftOut>,
    /// Addresses of the latest answer, where they are more than [`MAX_ADDRESSES`].
    pub cut: Option<usize>,
    /// Why the latest answer could not be put in force.
    pub refused: Option<String>,
}

impl HostStatus {
    /// Whether the latest look-up was answered.
    pub fn is_resolved(&self) -> bool {
        self.answered && self.failure.is_none()
    }
}

/// `1 address`, `2 addresses`.
pub fn addresses(count: usize) -> String {
    match count {
        1 => "1 address".to_owned(),
        count => format!("{count} addresses"),
    }
}

/// How all host names do.
pub type HostStatuses = BTreeMap<HostId, HostStatus>;

/// The view of host names for the API and the metrics.
pub type Hosts = tokio::sync::watch::Receiver<Arc<HostStatuses>>;
