//! Checks and agents of backends: the library of health checks, with the names of services and backends as its ids.

use lb_health_core as core;
pub use lb_health_core::*;

use crate::state::names::{BackendName, ServiceName};

/// Whose verdict it is: a backend of a service.
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
/// What is known about the check of a backend.
pub type CheckStatus = core::CheckStatus<CheckId>;
/// The status of each check by backend.
pub type CheckStatuses = core::CheckStatuses<CheckId>;
/// A verdict about a backend changed.
pub type HealthEvent = core::HealthEvent<CheckId>;
/// Asks the engine of checks and reads its results.
pub type HealthHandle = core::HealthHandle<CheckId>;
/// Memories of an earlier process, by backend and its address.
pub type Recalled = core::Recalled<CheckId>;

/// Agents of backends.
pub mod agent {
    use super::{CheckId, core};
    pub use lb_health_core::agent::*;

    /// Says whose agents are asked and reads what they say.
    pub type AgentHandle = core::agent::AgentHandle<CheckId>;
    /// An agent that should be asked.
    pub type AgentSpec = core::agent::AgentSpec<CheckId>;
    /// By whom what was said.
    pub type AgentView = core::agent::AgentView<CheckId>;
}
