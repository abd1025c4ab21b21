//! Backup backends: they take new flows while fewer than `backup_below` other backends of their service can. Pure.

use std::borrow::Cow;

use super::{
    backend::{Admin, Backend},
    content::Target,
    desired::Desired,
    effective::{Blocked, HealthView, health_of},
    names::{BackendName, ServiceName},
    service::Service,
};
use crate::health::Health;

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

/// The desired state with idle backups at weight 0. `desired` has agent updates applied, `health` combines checks and
/// agents.
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
