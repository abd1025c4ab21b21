//! The names of ids: counters are kept by id and shown by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::{
    backend::{BackendId, Generation},
    flow::IdleTimeouts,
    ring_slot::RingSlot,
    service::{RingId, ServiceId},
};

use crate::{
    plan::{Programmed, Step},
    state::service::ServiceKey,
};

/// Ids in use, published by the writer after each change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Directory {
    /// Services, in the order of their ids.
    pub(super) services: Arc<[(ServiceId, ServiceKey)]>,
    /// Further ports of services, with the keys of these.
    pub(super) aliases: Arc<BTreeMap<ServiceKey, ServiceKey>>,
    /// Lengths of the prefixes that are addresses of services, the longest first, of both families together.
    pub(super) prefix_lengths: Arc<[u8]>,
    /// Backends, in the order of their ids.
    pub(super) backends: Arc<[BackendEntry]>,
    /// Rings in use, as they were written last.
    pub(super) rings: BTreeMap<RingId, Arc<[RingSlot]>>,
    /// Prefixes in guards.
    pub(super) prefixes: usize,
    /// Prefixes of clients that go to groups of backends.
    pub(super) client_prefixes: usize,
    /// IPv4 endpoints of mode `dnat`.
    pub(super) replies_v4: usize,
    /// IPv6 endpoints of mode `dnat`.
    pub(super) replies_v6: usize,
    /// Source NAT addresses in use.
    pub(super) snat_addresses: usize,
    /// Idle timeouts of services; `None` until a target was programmed, since an earlier daemon's maps do not have them.
    pub(super) idle: Option<Arc<BTreeMap<ServiceKey, IdleTimeouts>>>,
}

/// A backend id in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BackendEntry {
    pub(super) id: BackendId,
    pub(super) generation: Generation,
    /// Whether recorded flows go to it.
    pub(super) alive: bool,
    pub(super) service: ServiceKey,
    pub(super) address: SocketAddr,
}

impl Directory {
    /// Lists the programmed state. A backend without a service, as an interrupted change may leave one, has no name.
    pub(super) fn of(programmed: &Programmed) -> Self {
        let mut services: Vec<_> = programmed
            .services
            .iter()
            .map(|(key, record)| (record.id, *key))
            .collect();
        services.sort_unstable();
        let backends = programmed
            .backends
            .iter()
            .filter_map(|(id, backend)| {
                let at = services
                    .binary_search_by_key(&backend.service, |(id, _)| *id)
                    .ok()?;
                Some(BackendEntry {
                    id: *id,
                    generation: backend.generation,
                    alive: backend.alive,
                    service: services.get(at)?.1,
                    address: backend.address,
                })
            })
            .collect();
        let aliases = programmed.aliases.iter().filter_map(|(alias, record)| {
            let at = services.binary_search_by_key(&record.id, |(id, _)| *id).ok()?;
            Some((*alias, services.get(at)?.1))
        });
        let aliases = Arc::new(aliases.collect());
        let prefixes = programmed.services.keys().filter(|key| key.is_prefix());
        let lengths: BTreeSet<u8> = prefixes.map(|key| key.length).collect();
        let endpoints = programmed.replies.keys();
        let replies_v4 = endpoints.filter(|endpoint| endpoint.address.is_ipv4()).count();
        Self {
            services: services.into(),
            aliases,
            prefix_lengths: lengths.into_iter().rev().collect(),
            backends,
            rings: programmed.rings.clone(),
            prefixes: programmed.prefixes.len(),
            client_prefixes: programmed.clients.values().map(BTreeMap::len).sum(),
            replies_v4,
            replies_v6: programmed.replies.len() - replies_v4,
            snat_addresses: programmed.snat_addresses.len(),
            idle: None,
        }
    }

    /// As [`Self::of`], from the directory `before` these steps.
    pub(super) fn after(before: &Self, steps: &[Step], programmed: &Programmed) -> Self {
        if steps.iter().any(Step::changes_names) {
            return Self {
                idle: before.idle.clone(),
                ..Self::of(programmed)
            };
        }
        Self {
            services: Arc::clone(&before.services),
            aliases: Arc::clone(&before.aliases),
            prefix_lengths: Arc::clone(&before.prefix_lengths),
            backends: Arc::clone(&before.backends),
            rings: programmed.rings.clone(),
            idle: before.idle.clone(),
            ..*before
        }
    }

    /// The key of a service's number.
    pub(super) fn key(&self, id: ServiceId) -> Option<ServiceKey> {
        let at = self.services.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.services.get(at).map(|(_, key)| *key)
    }

    /// Idle timeouts of a service and protocol; `None`: not known yet.
    pub(super) fn idle(&self, service: ServiceId, protocol: u8) -> Option<IdleTimeouts> {
        let idle = self.idle.as_ref()?;
        let known = self.key(service).and_then(|key| idle.get(&key));
        Some(known.copied().unwrap_or(IdleTimeouts::of(protocol)))
    }

    /// Whether flows of this backend id in this generation have an owner.
    pub(super) fn owns(&self, id: BackendId, generation: Generation) -> bool {
        self.owner(id, generation).is_some()
    }

    /// Whether recorded flows of this backend id in this generation go to it.
    pub(super) fn lives(&self, id: BackendId, generation: Generation) -> bool {
        self.owner(id, generation).is_some_and(|entry| entry.alive)
    }

    /// The backend that has this number now.
    pub(super) fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        let at = self.backends.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.backends.get(at)
    }

    fn owner(&self, id: BackendId, generation: Generation) -> Option<&BackendEntry> {
        self.backend(id).filter(|entry| entry.generation == generation)
    }
}
