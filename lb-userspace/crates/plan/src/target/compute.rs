//! All layers, one over the other.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use super::{
    agents, backups,
    caution::{self, Before},
    content::Target,
    desired::Desired,
    down_grace::DownGrace,
    effective::{self, Blocked, HealthView, RemovedBackends},
    guard::Prefix,
    removal,
    ring_sizes::RingSizes,
    slow_start::SlowStart,
};
use crate::health::agent::AgentView;

/// Inputs of a target besides the desired state.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The verdicts of checks.
    pub health: &'a HealthView,
    /// Agent updates.
    pub agents: &'a AgentView,
    /// Addresses that cannot be reached.
    pub blocked: &'a Blocked,
    /// Whether a prefix has an address of this machine's.
    pub is_own: &'a dyn Fn(&Prefix) -> bool,
    /// The addresses of this machine.
    pub own: &'a BTreeSet<IpAddr>,
}

/// State that a target takes from earlier ones, and that changes it over time.
#[derive(Clone, Default)]
pub struct Pace {
    /// Weights that rise.
    pub slow_start: SlowStart,
    /// Flows of backends that just went down.
    pub down: DownGrace,
    /// Rings that keep their size.
    pub ring_sizes: RingSizes,
}

impl Pace {
    /// When the target changes next.
    pub fn next(&self) -> Option<Instant> {
        [self.slow_start.next(), self.down.next()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Computes the target.
pub fn compute(
    desired: &Desired,
    inputs: Inputs<'_>,
    lingering: &RemovedBackends,
    before: Before<'_>,
    pace: &mut Pace,
    now: Instant,
) -> Arc<Target> {
    let desired = &*agents::in_force(desired, inputs.agents);
    let health = &*agents::judged(inputs.health, inputs.agents);
    let desired = &*backups::in_force(desired, health, inputs.blocked);
    let mut wanted = effective::target_without(
        desired,
        &removal::limited(desired, health),
        lingering,
        inputs.blocked,
    );
    effective::hold(&mut wanted, &caution::held(desired, health, before));
    effective::share_addresses(&mut wanted, inputs.is_own);
    effective::end_tunnels(&mut wanted, &desired.settings.decap_from, inputs.own);
    let wanted = pace.ring_sizes.keep(wanted, desired);
    let wanted = pace
        .down
        .keep_flows(wanted, desired, health, before.programmed, now);
    let mut wanted = pace.slow_start.hold_back(wanted, desired, health, now);
    if let Some(programmed) = before.programmed {
        wanted.share_with(programmed);
    }
    Arc::new(wanted)
}
