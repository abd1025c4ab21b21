//! Carrying out the steps of a plan, in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    addr::NetAddr,
    backend::{Backend, BackendId},
    limits::MAX_SNAT_ADDRESSES,
    ring_page,
    ring_slot::RingSlot,
    service::{RingId, ServiceId},
    settings::{ENDS_TUNNELS, HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
};

use super::{
    clients,
    maps::Maps,
    neighbours::NextHop,
    own_macs::OwnMacs,
    places::{Kernel, Places},
    quic, records, replies, services,
    stages::Stages,
};
use crate::{
    error::{DatapathError, ProgramError},
    grace::GracePeriod,
    plan::{Endpoint, Programmed, ProgrammedBackend, Step},
};

/// Writes to the maps.
pub(super) struct Executor {
    maps: Arc<Maps>,
    grace: GracePeriod,
    places: Places,
    stages: Stages,
    /// The known next hops of backends.
    hops: BTreeMap<IpAddr, NextHop>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("hops", &self.hops)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Starts from the programmed state: the next hops in its records are known.
    pub(super) fn new(
        maps: Arc<Maps>,
        stages: Stages,
        programmed: &Programmed,
    ) -> Result<Self, DatapathError> {
        let mut hops = BTreeMap::new();
        for (id, backend) in &programmed.backends {
            let record = maps
                .backends
                .get(&u32::from(id.0))
                .map_err(|e| DatapathError::Map {
                    map: maps.backends.name(),
                    reason: e.to_string(),
                })?;
            let hop = records::next_hop(&record.unwrap_or_default());
            // Backends at one address have the same next hop; records of tunnels may lack the source.
            let known: &mut NextHop = hops.entry(backend.address.ip()).or_insert(hop);
            known.source = known.source.or(hop.source);
        }
        let grace = GracePeriod::new().map_err(|source| DatapathError::Io {
            what: "cannot create a map of maps".to_owned(),
            source,
        })?;
        let kernel = Kernel {
            maps: &maps,
            grace: &grace,
        };
        let mut keys = programmed.services.clone();
        keys.extend(&programmed.aliases);
        keys.retain(|key, _| !key.is_prefix());
        let places = Places::open(&kernel, &keys).map_err(|e| DatapathError::Map {
            map: maps.service_places.name(),
            reason: e.to_string(),
        })?;
        Ok(Self {
            maps,
            grace,
            places,
            stages,
            hops,
        })
    }

    /// Carries out steps and records each in `programmed` as soon as it is done.
    ///
    /// # Errors
    /// The first step that fails; later steps are not begun. Packets go on as before: a plan writes references after the
    /// things that they lead to.
    pub(super) fn execute(
        &mut self,
        steps: &[Step],
        programmed: &mut Programmed,
    ) -> Result<(), ProgramError> {
        if let Some(first) = steps.first() {
            // Before anything leads packets to them.
            let ensured = self.stages.ensure(steps);
            ensured.map_err(|reason| ProgramError::Step {
                step: Box::new(first.clone()),
                reason: format!("a stage of the program cannot be loaded: {reason}"),
            })?;
        }
        let mut rest = steps;
        while let Some(first) = rest.first() {
            // Rings and new backends wait for a grace period: adjacent steps share one.
            let group = rest.iter().take_while(|step| joins(first, step)).count().max(1);
            let (group, behind) = rest.split_at(group);
            self.step(group, programmed).map_err(|e| ProgramError::Step {
                step: Box::new(first.clone()),
                reason: e.to_string(),
            })?;
            for step in group {
                programmed.apply(step);
            }
            rest = behind;
        }
        Ok(())
    }

    /// Takes up next hops and writes the records of the backends concerned.
    ///
    /// # Errors
    /// A map could not be read or written; the records reached until then are changed.
    pub(super) fn set_next_hops(
        &mut self,
        programmed: &Programmed,
        hops: BTreeMap<IpAddr, NextHop>,
    ) -> io::Result<()> {
        let concerned = |backend: &ProgrammedBackend| hops.contains_key(&backend.address.ip());
        let ids: Vec<(BackendId, ProgrammedBackend)> = programmed
            .backends
            .iter()
            .filter(|(_, backend)| concerned(backend))
            .map(|(id, backend)| (*id, *backend))
            .collect();
        self.hops.extend(hops);
        self.write_records(&ids)
    }

    /// Makes the program accept frames to these link-layer addresses.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub(super) fn set_own_macs(&self, macs: &OwnMacs) -> io::Result<()> {
        macs.write(&self.maps)
    }

    /// The next hops that are known.
    pub(super) const fn next_hops(&self) -> &BTreeMap<IpAddr, NextHop> {
        &self.hops
    }

    /// Forgets the next hops of other addresses; they are reported again if a backend gets such an address.
    pub(super) fn forget_all_but(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.hops.retain(|address, _| addresses.contains(address));
    }

    fn step(&mut self, group: &[Step], programmed: &Programmed) -> io::Result<()> {
        let maps = &self.maps;
        let kernel = Kernel {
            maps,
            grace: &self.grace,
        };
        let Some(first) = group.first() else {
            return Ok(());
        };
        match first {
            Step::WriteSettings {
                snat_addresses,
                snat_ports,
                gue_port,
                wildcard,
                dnat,
                prefix_services,
                ends_tunnels,
            } => {
                let flags = [
                    (*wildcard, HAS_WILDCARD),
                    (*dnat, HAS_DNAT),
                    (*prefix_services, HAS_PREFIX),
                    (*ends_tunnels, ENDS_TUNNELS),
                ];
                let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag);
                self.write_settings(
                    snat_addresses,
                    (*snat_ports.start(), *snat_ports.end()),
                    Settings {
                        gue_port: *gue_port,
                        flags: flags.sum(),
                        ..Settings::default()
                    },
                )
            }
            Step::WriteBackend { .. } => {
                let backends: Vec<_> = group
                    .iter()
                    .filter_map(|step| {
                        if let Step::WriteBackend { id, backend } = step {
                            Some((*id, *backend))
                        } else {
                            None
                        }
                    })
                    .collect();
                self.write_backends(&backends)
            }
            Step::WriteReply { endpoint, reply } => replies::write(maps, endpoint, reply),
            Step::WriteRing { .. } => {
                let rings: Vec<(RingId, &[RingSlot])> = group
                    .iter()
                    .filter_map(|step| {
                        if let Step::WriteRing { ring, slots } = step {
                            Some((*ring, slots.as_ref()))
                        } else {
                            None
                        }
                    })
                    .collect();
                maps.rings.set(&rings)
            }
            Step::WritePrefix { key, verdict } => maps.guard_prefixes.set(key, *verdict),
            Step::WriteFlowGuard { service, guard } => maps.flow_guards.set(&u32::from(service.0), *guard),
            Step::RemovePrefix { key } => maps.guard_prefixes.delete(key).map(drop),
            Step::WriteClients {
                service,
                prefix,
                ring,
            } => maps.client_rings.set(&clients::key(*service, prefix), *ring),
            Step::RemoveClients { service, prefix } => maps
                .client_rings
                .delete(&clients::key(*service, prefix))
                .map(drop),
            Step::WriteTunnelEnd { key } => maps.tunnel_ends.set(key, 1),
            Step::RemoveTunnelEnd { key } => maps.tunnel_ends.delete(key).map(drop),
            Step::WriteService { key, service } => {
                if service.alias == 0 && !programmed.services.contains_key(key) {
                    self.clear_service_counters(service.id)?;
                }
                services::write(&kernel, &mut self.places, key, *service)
            }
            Step::RemoveService { key, .. } => {
                services::remove(&kernel, &mut self.places, key, &programmed.services)
            }
            Step::Quic(step) => quic::write(maps, step),
            Step::Barrier => self.grace.wait(),
            Step::RemoveRing { .. } => maps.rings.remove(group.iter().filter_map(|step| {
                if let Step::RemoveRing { ring } = step {
                    let slots = programmed.rings.get(ring).map_or(0, |slots| slots.len());
                    Some((*ring, ring_page::pages(u32::try_from(slots).unwrap_or(u32::MAX))))
                } else {
                    None
                }
            })),
            Step::RemoveReply { .. } => {
                let gone: Vec<&Endpoint> = group
                    .iter()
                    .filter_map(|step| {
                        if let Step::RemoveReply { endpoint } = step {
                            Some(endpoint)
                        } else {
                            None
                        }
                    })
                    .collect();
                let left: BTreeSet<&Endpoint> = gone.iter().copied().collect();
                let stay = programmed
                    .replies
                    .keys()
                    .filter(|endpoint| !left.contains(endpoint));
                replies::remove(maps, &gone, stay)
            }
            Step::FreeBackend { id } => {
                let key = u32::from(id.0);
                let current = maps.backends.get(&key)?.unwrap_or_default();
                maps.backends.set(&key, records::freed(&current))
            }
        }
    }

    /// Counts shrink before their addresses change, and grow afterwards, so that a packet never takes a missing address.
    fn write_settings(
        &self,
        addresses: &[IpAddr],
        ports: (u16, u16),
        Settings { flags, gue_port, .. }: Settings,
    ) -> io::Result<()> {
        let maps = &self.maps;
        let family = |v4: bool| addresses.iter().filter(move |address| address.is_ipv4() == v4);
        let count = |v4: bool| u16::try_from(family(v4).count()).map_err(io::Error::other);
        let current = maps.settings.get(&0)?.unwrap_or_default();
        let wanted = Settings {
            snat_port_first: ports.0,
            snat_port_count: (ports.1.saturating_sub(ports.0)).saturating_add(1),
            snat_v4_count: count(true)?,
            snat_v6_count: count(false)?,
            flags,
            gue_port,
            ..current.with_replies_to(ports.0, ports.1)
        };
        let shrunk = Settings {
            snat_v4_count: current.snat_v4_count.min(wanted.snat_v4_count),
            snat_v6_count: current.snat_v6_count.min(wanted.snat_v6_count),
            ..current
        };
        if shrunk != current {
            maps.settings.set(&0, shrunk)?;
            self.grace.wait()?;
        }
        for (first, v4) in [(0, true), (MAX_SNAT_ADDRESSES, false)] {
            for (index, address) in (first..first + MAX_SNAT_ADDRESSES).zip(family(v4)) {
                maps.snat_addresses.set(&index, NetAddr::from(*address))?;
            }
        }
        maps.settings.set(&0, wanted)
    }

    fn write_backends(&self, backends: &[(BackendId, ProgrammedBackend)]) -> io::Result<()> {
        let maps = &self.maps;
        for (id, backend) in backends {
            let key = u32::from(id.0);
            let mut current = maps.backends.get(&key)?.unwrap_or_default();
            let of_before = ProgrammedBackend {
                generation: current.generation,
                ..*backend
            };
            if current.generation != backend.generation && records::same_identity(&current, &of_before) {
                current = records::reborn(current, backend.generation);
                maps.backends.set(&key, current)?;
            }
            if records::same_identity(&current, backend) {
                maps.backends.set(&key, records::with_state(current, backend))?;
            } else {
                maps.backend_traffic.clear(key)?;
                maps.backend_signals.clear(key)?;
            }
        }
        self.write_records(backends)
    }

    /// Updates the records of these backends in the steps that [`records`] explains. A record keeps its next hop until a new
    /// one is known.
    fn write_records(&self, backends: &[(BackendId, ProgrammedBackend)]) -> io::Result<()> {
        let mut changes = Vec::new();
        for (id, backend) in backends {
            let key = u32::from(id.0);
            let current = self.maps.backends.get(&key)?.unwrap_or_default();
            let hop = self.hops.get(&backend.address.ip());
            if hop.is_none() && records::same_identity(&current, backend) {
                continue;
            }
            let wanted = records::record(backend, hop);
            changes.push((key, records::writes(&current, &wanted)));
        }
        let mut wrote = false;
        for stage in 0..3 {
            let writes: Vec<(u32, Backend)> = changes
                .iter()
                .filter_map(|(key, writes)| Some((*key, writes[stage]?)))
                .collect();
            if writes.is_empty() {
                continue;
            }
            if wrote {
                self.grace.wait()?;
            }
            for (key, record) in writes {
                self.maps.backends.set(&key, record)?;
            }
            wrote = true;
        }
        Ok(())
    }

    /// Clears the counters of an id when it gets a new owner.
    fn clear_service_counters(&self, id: ServiceId) -> io::Result<()> {
        self.maps.service_traffic.clear(u32::from(id.0))?;
        self.maps.service_drops.clear(u32::from(id.0))
    }
}

/// Whether two steps are carried out together.
fn joins(first: &Step, step: &Step) -> bool {
    matches!(
        (first, step),
        (Step::WriteRing { .. }, Step::WriteRing { .. })
            | (Step::RemoveRing { .. }, Step::RemoveRing { .. })
            | (Step::WriteBackend { .. }, Step::WriteBackend { .. })
            | (Step::RemoveReply { .. }, Step::RemoveReply { .. })
    )
}
