//! A target id and targets for the tests of this library.

use crate::{agent, board, engine, status, task};

pub(crate) type CheckId = (String, String);

pub(crate) fn id(service: &str, backend: &str) -> CheckId {
    (service.to_owned(), backend.to_owned())
}

pub(crate) type AgentView = agent::AgentView<CheckId>;
pub(crate) type AgentSpec = agent::AgentSpec<CheckId>;
pub(crate) type CheckSpec = status::CheckSpec<CheckId>;
pub(crate) type StatusBoard = board::StatusBoard<CheckId>;
pub(crate) type Changes = engine::Changes<CheckId>;
pub(crate) type Engine = engine::Engine<CheckId>;
pub(crate) type HealthEvent = status::HealthEvent<CheckId>;
pub(crate) type HealthHandle = task::HealthHandle<CheckId>;
