//! The content of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    api::types,
    control::{ControlView, Observation},
    discovery::HostStatuses,
    health::{CheckId, CheckStatuses, agent::AgentStatus},
};

/// State, counters and checks at one moment.
pub(in crate::api) struct StatusSnapshot {
    pub(super) view: Arc<ControlView>,
    pub(super) seen: Observation,
    pub(super) checks: Arc<CheckStatuses>,
    pub(super) agents: Arc<BTreeMap<CheckId, AgentStatus>>,
    pub(super) hosts: Arc<HostStatuses>,
    pub(super) config: types::ConfigState,
    /// Problems of the configuration file and the store.
    pub(super) of_config: Vec<types::Problem>,
}
