//! A plan under construction.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::{
    backend::BackendId,
    clients::ClientRing,
    limits::{MAX_RINGS, MAX_SERVICES},
    ring_slot::RingSlot,
    service::{RingId, Service as ServiceRecord, ServiceId},
};

use super::{
    client_rings::ClientRings,
    groups::Group,
    guard::Guards,
    ids::{FreeBackends, FreeIds},
    plan_cache::PlannedService,
    quic,
    replies::Replies,
};
use crate::{
    error::PlanError,
    programmed::Programmed,
    ring::{self, Share},
    state::service::{Algorithm, ServiceKey},
    step::Step,
    target::content::TargetService,
    transition,
};

/// Programmed backends, by address and mode: one generation never changes its mode.
pub(super) type Known = BTreeMap<(SocketAddr, u8), BackendId>;

/// A ring: its id and slots.
pub(super) type Built = (RingId, Arc<[RingSlot]>);

/// The input of a service's ring: its backends, and which of them may have flows.
#[derive(Default)]
pub(super) struct Members {
    pub(super) ids: Vec<BackendId>,
    pub(super) shares: Vec<Share>,
    pub(super) living: BTreeSet<BackendId>,
}

/// A plan under construction: ids that stay in use, and steps by phase.
pub(super) struct Draft<'a> {
    pub(super) programmed: &'a Programmed,
    /// Of the services that are looked at.
    pub(super) known: BTreeMap<ServiceId, Known>,
    pub(super) service_ids: FreeIds,
    pub(super) ring_ids: FreeIds,
    pub(super) backend_ids: FreeBackends<'a>,
    pub(super) kept_services: BTreeSet<ServiceKey>,
    /// Further ports of services, with their records.
    pub(super) aliases: BTreeMap<ServiceKey, ServiceRecord>,
    pub(super) kept_backends: BTreeSet<BackendId>,
    pub(super) kept_rings: BTreeSet<RingId>,
    pub(super) guards: Guards,
    pub(super) clients: ClientRings,
    pub(super) replies: Replies,
    pub(super) quic: quic::Draft,
    pub(super) write_backends: Vec<Step>,
    pub(super) write_rings: Vec<Step>,
    pub(super) write_services: Vec<Step>,
    pub(super) stop_backends: Vec<Step>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(programmed: &'a Programmed) -> Self {
        let records = programmed.services.values();
        let services = records
            .clone()
            .map(|record| record.id)
            .chain(programmed.backends.values().map(|backend| backend.service))
            .chain(programmed.aliases.values().map(|record| record.id))
            .chain(programmed.prefixes.keys().map(|prefix| prefix.service))
            .chain(programmed.clients.keys().copied());
        let of_clients = programmed.clients.values().flat_map(BTreeMap::values);
        let ring_ids = records
            .map(|record| record.ring)
            .chain(of_clients.map(|clients| clients.ring))
            .chain(programmed.rings.keys().copied());
        Self {
            service_ids: FreeIds::new("service", services.map(|id| id.0), MAX_SERVICES),
            ring_ids: FreeIds::new("ring", ring_ids.map(|id| id.0), MAX_RINGS),
            backend_ids: FreeBackends::new(programmed),
            programmed,
            known: BTreeMap::new(),
            kept_services: BTreeSet::new(),
            aliases: BTreeMap::new(),
            kept_backends: BTreeSet::new(),
            kept_rings: BTreeSet::new(),
            guards: Guards::default(),
            clients: ClientRings::default(),
            replies: Replies::default(),
            quic: quic::Draft::default(),
            write_backends: Vec::new(),
            write_rings: Vec::new(),
            write_services: Vec::new(),
            stop_backends: Vec::new(),
        }
    }

    /// Keeps a service without changes; false if another one has its ring.
    pub(super) fn keep(&mut self, key: ServiceKey, settled: &PlannedService) -> bool {
        if !self.kept_rings.insert(settled.record.ring) {
            return false;
        }
        self.kept_services.insert(key);
        self.kept_backends.extend(&settled.ids);
        true
    }

    /// Looks up the backends that these services have.
    pub(super) fn know<'b>(&mut self, services: impl Iterator<Item = &'b ServiceKey>) {
        let records = services.filter_map(|key| self.programmed.services.get(key));
        self.known = records.map(|record| (record.id, Known::new())).collect();
        if self.known.is_empty() {
            return;
        }
        for (id, backend) in &self.programmed.backends {
            if let Some(known) = self.known.get_mut(&backend.service) {
                // An interrupted plan may have left two ids for one backend: the lower one stays, the other is freed.
                known.entry((backend.address, backend.mode as u8)).or_insert(*id);
            }
        }
    }

    /// A service's own ring, as it is programmed.
    pub(super) fn ring_before(&self, key: ServiceKey) -> Option<ClientRing> {
        let record = self.programmed.services.get(&key)?;
        (record.ring_size != 0).then_some(ClientRing {
            ring_size: record.ring_size,
            ring: record.ring,
            pad: 0,
        })
    }

    /// Plans the ring of a group's clients, who had the ring `before`; returns its id and slots, or `None` if it needs none: no
    /// backend takes new flows, and none has flows that need the ring. The id is that of the ring before if the size stays, else
    /// a free one, since a packet must never see one ring's size with another's slots.
    pub(super) fn ring(
        &mut self,
        key: ServiceKey,
        target: &TargetService,
        members: &Members,
        group: Group,
        before: Option<ClientRing>,
    ) -> Result<Option<Built>, PlanError> {
        let Members { ids, shares, living } = members;
        let shares = target.shares_of(group, shares);
        let size = target.ring_size;
        let owners = match target.algorithm {
            Algorithm::Maglev => ring::maglev(&shares, size),
            Algorithm::RoundRobin => ring::in_turn(&shares, size),
        };
        let owners = owners.map_err(|source| PlanError::Ring { key, source })?;
        let old = before.and_then(|before| self.programmed.rings.get(&before.ring));
        let drains = target.remembers() && old.is_some() && !living.is_empty();
        if owners.is_empty() && !drains {
            return Ok(None);
        }
        let owners: Vec<BackendId> = if owners.is_empty() {
            vec![BackendId::NONE; size as usize]
        } else {
            owners.iter().map(|owner| ids[usize::from(*owner)]).collect()
        };
        let slots = match old {
            Some(old) if target.remembers() => transition::rebuild(old, &owners, |id| living.contains(&id)),
            Some(_) | None => transition::fresh(&owners),
        };
        let own = before
            .filter(|before| before.ring_size == size)
            .map(|before| before.ring)
            .filter(|ring| !self.kept_rings.contains(ring));
        let ring = match own {
            Some(ring) => ring,
            None => RingId(self.ring_ids.take()?),
        };
        self.kept_rings.insert(ring);
        let there = self.programmed.rings.get(&ring);
        if let Some(there) = there.filter(|there| ***there == *slots) {
            return Ok(Some((ring, Arc::clone(there))));
        }
        let slots: Arc<[RingSlot]> = Arc::from(slots);
        self.write_rings.push(Step::WriteRing {
            ring,
            slots: Arc::clone(&slots),
        });
        Ok(Some((ring, slots)))
    }
}
