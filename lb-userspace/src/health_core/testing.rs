//! A name for targets, and what bears it, for the tests of this library.

use super::{agent, board, engine, status, target::TargetId, task};

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct CheckId(pub(crate) String, pub(crate) String);

impl TargetId for CheckId {
    type Service = String;

    fn service(&self) -> &String {
        &self.0
    }

    fn backend(&self) -> &str {
        &self.1
    }
}

pub(crate) fn id(service: &str, backend: &str) -> CheckId {
    CheckId(service.to_owned(), backend.to_owned())
}

pub(crate) type AgentEngine = agent::AgentEngine<CheckId>;
pub(crate) type AgentView = agent::AgentView<CheckId>;
pub(crate) type AgentSpec = agent::AgentSpec<CheckId>;
pub(crate) type CheckSpec = status::CheckSpec<CheckId>;
pub(crate) type StatusBoard = board::StatusBoard<CheckId>;
pub(crate) type Changes = engine::Changes<CheckId>;
pub(crate) type Engine = engine::Engine<CheckId>;
pub(crate) type HealthEvent = status::HealthEvent<CheckId>;
pub(crate) type HealthHandle = task::HealthHandle<CheckId>;
