//! Backup backends: they take new flows while fewer than `backup_below` other backends of their service can. Pure.
//!
//! This is one of several layers over the desired state, in this order:
//!
//! 1. the operator, then agents ([`super::agents`]): drains, maintenance, weights. A backend that drains, is disabled or has
//!    weight 0 cannot take flows, so draining the last of the others calls the backups;
//! 2. verdicts of checks and agents: a backend that is down, or that cannot be reached, cannot take flows; one that was
//!    never checked can;
//! 3. backups, here: those in reserve have weight 0 and keep the flows that they have, as any backend that drains;
//! 4. panic mode ([`super::removal`]): only the others count for `max_removed_percent`. A backend that takes flows by panic
//!    mode alone does not count as one that can: the backups serve beside it;
//! 5. `on_empty = "all"`: with nobody left, enabled backends take flows, backups among them;
//! 6. slow start ([`super::slow_start`]): a backup that is called helps with its whole weight at once.

use std::borrow::Cow;

use super::{
    backend::{Admin, Backend},
    desired::Desired,
    effective::{Blocked, HealthView, health_of},
    names::{BackendName, ServiceName},
    service::Service,
};
use crate::{Target, health::Health};

/// How many backends that are no backups can take new flows, and how many there are.
pub fn others(service: &Service, health: &HealthView, blocked: &Blocked) -> (usize, usize) {
    let can = |backend: &&Backend| {
        let works = match health_of(service, backend, health) {
            Health::Up | Health::Unchecked => true,
            Health::Down => false,
        };
        works
            && backend.admin == Admin::Enabled
            && backend.weight > 0
            && !blocked.contains(&backend.address.ip())
    };
    let others = service.backends.iter().filter(|backend| !backend.backup);
    (others.clone().filter(can).count(), others.count())
}

/// Whether the backups of a service are called.
fn called(service: &Service, health: &HealthView, blocked: &Blocked) -> bool {
    u32::try_from(others(service, health, blocked).0).is_ok_and(|can| can < service.backup_below)
}

/// The desired state with backups in reserve at weight 0. `desired` is what agents make of it, `health` what checks and
/// agents say together.
pub fn in_force<'a>(desired: &'a Desired, health: &HealthView, blocked: &Blocked) -> Cow<'a, Desired> {
    let rests = |service: &Service| {
        service.backends.iter().any(|backend| backend.backup) && !called(service, health, blocked)
    };
    let resting: Vec<&ServiceName> = desired
        .services
        .values()
        .filter(|service| rests(service))
        .map(|service| &service.name)
        .collect();
    let mut in_force = Cow::Borrowed(desired);
    for name in resting {
        let Some(service) = in_force.to_mut().services.get_mut(name) else {
            continue;
        };
        for backend in service.backends.iter_mut().filter(|backend| backend.backup) {
            backend.weight = 0;
        }
    }
    in_force
}

/// The backups that take new flows in `target`.
pub fn serving<'a>(
    desired: &'a Desired,
    target: &Target,
) -> impl Iterator<Item = (&'a ServiceName, &'a BackendName)> {
    let services = desired.services.values().map(|service| &**service);
    services.flat_map(move |service| {
        let there = target.services.get(&service.key);
        let takes_flows = move |backend: &&Backend| {
            let there = there.and_then(|there| there.backends.get(&backend.address));
            backend.backup && there.is_some_and(|there| there.weight > 0)
        };
        let backups = service.backends.iter().filter(takes_flows);
        backups.map(|backend| (&service.name, &backend.name))
    })
}

#[cfg(test)]
mod tests;
