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
    /// Share of the hash space (0 to 1) that another backend will own: the share of new flows that go elsewhere.
    pub share: f64,
    /// Backends that lose the flows they have, by their place in the data plane.
    pub losers: Vec<(ServiceKey, SocketAddr)>,
}

/// The effect on the flows of each service that both states have. Established flows stay with a living backend, and
/// with a removed one, unless it is removed `at_once`. If no backend takes flows before or after, all new flows move;
/// if neither before nor after, none.
pub fn moves(
    old: &Desired,
    new: &Desired,
    health: &HealthView,
    at_once: Option<(&ServiceName, &BackendName)>,
    sizes: &RingSizes,
) -> BTreeMap<ServiceName, Moves> {
    let lingering = RemovedBackends::new();
    let stay = old
        .services
        .keys()
        .filter(|name| new.services.contains_key(*name));
    let mut moves: BTreeMap<ServiceName, Moves> = stay.map(|name| (name.clone(), Moves::default())).collect();
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
    let both = old
        .services
        .values()
        .filter_map(|service| Some((service, new.services.get(&service.name)?)));
    moves.extend(both.filter_map(|(old, new)| {
        let (before, after) = (before.services.get(&old.key)?, after.services.get(&new.key)?);
        let stays = old.key == new.key;
        let loses = |backend: &&Backend| {
            let now = at_once == Some((&old.name, &backend.name));
            !stays
                || match after.backends.get(&backend.address) {
                    Some(there) => !there.alive,
                    None => now,
                }
        };
        let alive = |backend: &&Backend| {
            before
                .backends
                .get(&backend.address)
                .is_some_and(|there| there.alive)
        };
        let losers = old.backends.iter().filter(alive).filter(loses);
        let moves = Moves {
            share: if stays { moved_share(before, after) } else { 1.0 },
            losers: losers.map(|backend| (old.key, backend.address)).collect(),
        };
        Some((new.name.clone(), moves))
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
