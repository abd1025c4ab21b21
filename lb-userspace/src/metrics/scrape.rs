//! The inputs of a scrape.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use prometheus::Registry;

use crate::{
    control::{ControlView, Observation},
    discovery::HostStatuses,
    events::EventLog,
    health::{CheckId, CheckStatuses, Health, agent::AgentStatus},
    parts::PartBoard,
    state::effective::HealthView,
};

/// Everything that a scrape shows.
pub struct Scrape<'a> {
    /// Metrics that are counted where things happen.
    pub registry: &'a Registry,
    /// Whether the desired state is programmed on all interfaces.
    pub ready: bool,
    /// Desired against programmed.
    pub view: &'a ControlView,
    /// Counters of the maps.
    pub seen: &'a Observation,
    /// Checks.
    pub checks: &'a CheckStatuses,
    /// Agents.
    pub agents: &'a BTreeMap<CheckId, AgentStatus>,
    /// Host names of backends.
    pub hosts: &'a HostStatuses,
    /// Missing parts of the daemon.
    pub parts: &'a PartBoard,
    /// Events so far.
    pub events: &'a EventLog,
    /// Tag of the program that runs, as `bpftool prog` shows it; empty where none does.
    pub program: &'a str,
    /// Whether the configuration file is not in force; `None` without a file.
    pub differs_from_file: Option<bool>,
    /// The present.
    pub now: SystemTime,
    /// The present, by the clock that measures durations.
    pub instant: Instant,
}

impl Scrape<'_> {
    /// Health states by checks and agents.
    pub(super) fn health(&self) -> HealthView {
        let by_checks = self.checks.iter();
        let mut health: HealthView = by_checks
            .map(|(id, status)| (id.clone(), status.health))
            .collect();
        let down = self
            .agents
            .iter()
            .filter(|(_, agent)| !agent.report.word.state.is_up());
        health.extend(down.map(|(id, _)| (id.clone(), Health::Down)));
        health
    }
}
