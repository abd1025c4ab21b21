//! Checks and agents of backends: the library of health checks, with the names of services and backends as its ids.

use lb_health_core as core;
pub use lb_health_core::*;

use crate::state::names::{BackendName, ServiceName};

/// The target of a check: a backend of a service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CheckId(pub ServiceName, pub BackendName);

impl TargetId for CheckId {
    type Service = ServiceName;

    fn service(&self) -> &ServiceName {
        &self.0
    }

    fn backend(&self) -> &str {
        self.1.as_str()
    }
}

/// A check of a backend that should go on.
pub type CheckSpec = core::CheckSpec<CheckId>;
/// The status of the check of a backend.
pub type CheckStatus = core::CheckStatus<CheckId>;
/// The status of each check by backend.
pub type CheckStatuses = core::CheckStatuses<CheckId>;
/// A change of a backend's health state, or of the memory to store.
pub type HealthEvent = core::HealthEvent<CheckId>;
/// Sends checks to the engine and reads their results.
pub type HealthHandle = core::HealthHandle<CheckId>;
/// Memories of checks of an earlier process, by backend, each with its address.
pub type Recalled = core::Recalled<CheckId>;

/// Agents of backends.
pub mod agent {
    use super::{CheckId, core};
    pub use lb_health_core::agent::*;

    /// Sets which agents are asked and reads their updates.
    pub type AgentHandle = core::agent::AgentHandle<CheckId>;
    /// An agent that should be asked.
    pub type AgentSpec = core::agent::AgentSpec<CheckId>;
    /// The agent updates, by backend.
    pub type AgentView = core::agent::AgentView<CheckId>;
}
