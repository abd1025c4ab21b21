//! The effect of a change on the flows of services. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::ring_slot;

use super::{
    backend::Backend,
    backups,
    content::TargetService,
    desired::Desired,
    effective::{self, Blocked, HealthView, RemovedBackends},
    names::{BackendName, ServiceName},
    removal,
    ring_sizes::RingSizes,
    service::{Service, ServiceKey},
    shared::Shared,
};
use crate::{
    groups::Group,
    ring::{self, Share},
};

/// The effect of a change on the flows of a service.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Moves {
    /// Share of the hash space (0 to 1) that another backend will own, or none: the share of new flows that go elsewhere.
    pub share: f64,
    /// Backends that lose the flows they have, by their place in the data plane.
    pub losers: Vec<(ServiceKey, SocketAddr)>,
    /// Where the service was, if it is removed or goes to another address or port: all of its flows end.
    pub left: Option<ServiceKey>,
}

/// The effect on the flows of each service that `old` has, by its name there. Established flows stay with a living backend, and
/// with a removed one, unless it is removed `at_once`, or the service is. If no backend takes flows before or after, all new
/// flows move; if neither before nor after, none. A service that only gets another name stays.
pub fn moves(
    old: &Desired,
    new: &Desired,
    health: &HealthView,
    at_once: Option<(&ServiceName, &BackendName)>,
    sizes: &RingSizes,
) -> BTreeMap<ServiceName, Moves> {
    let lingering = RemovedBackends::new();
    let names = old.services.keys();
    let mut moves: BTreeMap<ServiceName, Moves> =
        names.map(|name| (name.clone(), Moves::default())).collect();
    let (old, new) = (&different(old, new), &different(new, old));
    let (old, new) = (
        &*backups::in_force(old, health, &Blocked::new()),
        &*backups::in_force(new, health, &Blocked::new()),
    );
    let target = |desired: &Desired| {
        let wanted = effective::target(desired, &removal::limited(desired, health), &lingering);
        sizes.clone().keep(wanted, desired)
    };
    let (before, after) = (target(old), target(new));
    moves.extend(old.services.values().filter_map(|old| {
        let Some(after) = after.services.get(&old.key) else {
            let left = Moves {
                share: 1.0,
                losers: Vec::new(),
                left: Some(old.key),
            };
            return Some((old.name.clone(), left));
        };
        let before = before.services.get(&old.key)?;
        let loses = |backend: &&Backend| match after.backends.get(&backend.address) {
            Some(there) => !there.alive,
            None => at_once == Some((&old.name, &backend.name)),
        };
        let alive = |backend: &&Backend| {
            before
                .backends
                .get(&backend.address)
                .is_some_and(|there| there.alive)
        };
        let losers = old.backends.iter().filter(alive).filter(loses);
        let moves = Moves {
            share: moved_share(before, after),
            losers: losers.map(|backend| (old.key, backend.address)).collect(),
            left: None,
        };
        Some((old.name.clone(), moves))
    }));
    moves
}

/// A state reduced to the services that differ from another one.
fn different(desired: &Desired, other: &Desired) -> Desired {
    let differs =
        |(name, service): &(&ServiceName, &Shared<Service>)| other.services.get(*name) != Some(*service);
    let services = desired.services.iter().filter(differs);
    Desired {
        revision: desired.revision,
        settings: desired.settings.clone(),
        services: services
            .map(|(name, service)| (name.clone(), service.clone()))
            .collect(),
    }
}

/// The share of the hash space whose backend (by address) differs, for clients that go to no group.
fn moved_share(old: &TargetService, new: &TargetService) -> f64 {
    let shares = |service: &TargetService| -> Vec<_> {
        service
            .backends
            .iter()
            .map(|(address, backend)| (*address, backend.weight, backend.group))
            .collect()
    };
    if old.ring_size == new.ring_size && shares(old) == shares(new) {
        return 0.0;
    }
    let (before, after) = (owners(old), owners(new));
    if before.is_empty() || after.is_empty() {
        return if before.is_empty() == after.is_empty() {
            0.0
        } else {
            1.0
        };
    }
    let points = before.len().max(after.len());
    let at = |owners: &[SocketAddr], point: usize| {
        let hash = (point as u64 * (1 << 32) + (1 << 31)) / points as u64;
        let size = u32::try_from(owners.len()).unwrap_or(u32::MAX);
        owners[ring_slot::index(u32::try_from(hash).unwrap_or(u32::MAX), size) as usize]
    };
    let moved = (0..points)
        .filter(|point| at(&before, *point) != at(&after, *point))
        .count();
    moved as f64 / points as f64
}

fn owners(service: &TargetService) -> Vec<SocketAddr> {
    let addresses: Vec<_> = service.backends.keys().copied().collect();
    let shares: Vec<Share> = service
        .backends
        .iter()
        .map(|(address, backend)| Share {
            identity: ring::identity(*address),
            weight: backend.weight,
        })
        .collect();
    let shares = service.shares_of(Group::GENERAL, &shares);
    let owners = ring::maglev(&shares, service.ring_size).unwrap_or_default();
    owners
        .into_iter()
        .map(|owner| addresses[usize::from(owner)])
        .collect()
}

#[cfg(test)]
mod tests;
