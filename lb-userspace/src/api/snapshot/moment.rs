//! The content of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    api::types,
    control::{ControlView, Observation},
    discovery::HostStatuses,
    health::{CheckId, CheckStatuses, agent::AgentStatus},
};

/// State, counters and checks at one moment.
pub(crate) struct StatusSnapshot {
    pub(in crate::api) view: Arc<ControlView>,
    pub(in crate::api) seen: Observation,
    pub(in crate::api) checks: Arc<CheckStatuses>,
    pub(in crate::api) agents: Arc<BTreeMap<CheckId, AgentStatus>>,
    pub(in crate::api) hosts: Arc<HostStatuses>,
    pub(in crate::api) config: types::ConfigState,
    /// Problems of the configuration file and the store.
    pub(in crate::api) of_config: Vec<types::Problem>,
}
