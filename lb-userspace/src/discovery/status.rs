//! How host names do.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use crate::state::{
    discovered::LeftOut,
    names::{BackendName, ServiceName},
};

/// A host name of a service: names of the service and of the `[[service.backend]]` table.
pub type HostId = (ServiceName, BackendName);

/// How a host name does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostStatus {
    /// Whether it was ever answered by this daemon.
    pub answered: bool,
    /// Why the latest look-up failed, and since when look-ups fail.
    pub failure: Option<(String, SystemTime)>,
    /// Addresses that are no backends.
    pub left_out: Vec<LeftOut>,
    /// Addresses of the latest answer, where they are more than [`MAX_ADDRESSES`](super::MAX_ADDRESSES).
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
