//! Builds a plan: the steps of each service, by phase.

mod clients;

use std::net::SocketAddr;

use lb_common::{
    backend::BackendId,
    service::{
        BY_PORT, BY_SOURCE, FORWARDS, IN_TURN, Mode, OnEmpty as EmptyRecord, QUIC, RingId, SHARES_ADDRESS,
        Service as ServiceRecord, ServiceId, TCP, TRACKS_ALL, TRANSLATES, UDP,
    },
};

use super::{flags::Flags, groups::Group, plan_cache::PlannedService};
use crate::{
    draft::{Draft, Members},
    error::PlanError,
    programmed::ProgrammedBackend,
    ring::{self, Share},
    state::{
        guard::Guard,
        service::{Affinity, Algorithm, OnEmpty, Protocol, ServiceKey},
        shared::Shared,
    },
    step::Step,
    target::content::{Target, TargetBackend, TargetService},
};

impl Draft<'_> {
    /// Plans a service; returns how it stands afterwards, if it can be planned apart from others from then on.
    pub(super) fn service(
        &mut self,
        key: ServiceKey,
        target: &Shared<TargetService>,
    ) -> Result<Option<PlannedService>, PlanError> {
        let (writes, stops) = (self.write_backends.len(), self.stop_backends.len());
        let old = self.programmed.services.get(&key);
        let id = match old {
            Some(record) => record.id,
            None => ServiceId(self.service_ids.take()?),
        };
        self.kept_services.insert(key);
        let members = self.backends(key, id, target)?;
        if let Some(quic) = &target.quic {
            let backends = target.backends.keys().copied().zip(members.ids.iter().copied());
            self.quic.service(id, quic, backends, &self.programmed.quic);
        }
        let built = self.ring(key, target, &members, Group::GENERAL, self.ring_before(key))?;
        let by_clients = self.client_rings(key, id, target, &members, built.as_ref())?;
        let ids = members.ids;
        let (ring_size, ring) = match &built {
            Some((ring, _)) => (target.ring_size, *ring),
            None => (0, RingId::default()),
        };
        let record = ServiceRecord {
            ring_size,
            ring,
            id,
            mode: target.mode as u8,
            on_empty: match target.on_empty {
                OnEmpty::Reject => EmptyRecord::Reject,
                OnEmpty::Drop | OnEmpty::All => EmptyRecord::Drop,
            } as u8,
            flags: flags(target) | by_clients | self.guards.add(id, key.address, &target.guard),
            alias: 0,
            prefix_bits: if key.is_prefix() { key.length } else { 0 },
            pad: [0; 2],
        };
        if old != Some(&record) {
            self.write_services
                .push(Step::WriteService { key, service: record });
        }
        for port in &target.more_ports {
            let alias = ServiceRecord { alias: 1, ..record };
            self.aliases.insert(ServiceKey { port: *port, ..key }, alias);
        }
        let alone = target.guard == Guard::default()
            && target.more_ports.is_empty()
            && target.quic.is_none()
            && by_clients == 0
            && target.backends.values().all(|backend| backend.mode != Mode::Dnat);
        let pending = [&self.write_backends[writes..], &self.stop_backends[stops..]].concat();
        let pending = pending.into_iter().filter_map(|step| {
            if let Step::WriteBackend { id, backend } = step {
                Some((id, backend))
            } else {
                None
            }
        });
        Ok(built.filter(|_| alone).map(|(_, ring)| PlannedService {
            target: target.clone(),
            record,
            ring,
            ids,
            pending: pending.collect(),
        }))
    }

    /// Plans the backends of a service; returns the input of its ring.
    fn backends(
        &mut self,
        key: ServiceKey,
        service: ServiceId,
        target: &TargetService,
    ) -> Result<Members, PlanError> {
        let there = self.known.remove(&service).unwrap_or_default();
        let mut members = Members::default();
        for ((address, backend), share) in target.backends.iter().zip(target.shares()) {
            let known = there.get(&(*address, backend.mode as u8)).copied();
            let id = self.backend(key, service, *address, backend, known)?;
            if lives(backend) {
                members.living.insert(id);
            }
            if backend.mode == Mode::Dnat {
                self.replies.add(key, service, *address, id);
            }
            members.ids.push(id);
            members.shares.push(Share {
                identity: ring::identity(*address),
                weight: share,
            });
        }
        Ok(members)
    }

    fn backend(
        &mut self,
        key: ServiceKey,
        service: ServiceId,
        address: SocketAddr,
        target: &TargetBackend,
        known: Option<BackendId>,
    ) -> Result<BackendId, PlanError> {
        let there = known.and_then(|id| Some((id, self.programmed.backends.get(&id)?)));
        let (id, generation) = match there {
            // While it was dead, flows that were its own have moved on without a trace.
            Some((id, there)) if target.mode != Mode::Nat && !there.alive && lives(target) => {
                (id, there.generation.next())
            }
            Some((id, there)) => (id, there.generation),
            None => self.backend_ids.take()?,
        };
        let backend = ProgrammedBackend {
            address,
            service,
            generation,
            mode: target.mode,
            protocol: protocol_number(key.protocol),
            alive: lives(target),
            held_back: target.held_back,
            tunnel_source: target.tunnel_source,
        };
        self.kept_backends.insert(id);
        if self.programmed.backends.get(&id) != Some(&backend) {
            let stops = known.is_some() && !backend.alive;
            let phase = if stops {
                &mut self.stop_backends
            } else {
                &mut self.write_backends
            };
            phase.push(Step::WriteBackend { id, backend });
        }
        Ok(id)
    }

    pub(super) fn finish(self, target: &Target) -> Vec<Step> {
        let programmed = self.programmed;
        let now = Flags::wanted(target, !self.replies.is_empty());
        let before = Flags::programmed(programmed);
        // Services to be removed need their flags until then.
        let meanwhile = now.or(before);
        let settings = |flags: Flags| Step::WriteSettings {
            snat_addresses: target.snat_addresses.clone(),
            snat_ports: target.snat_ports.clone(),
            gue_port: target.gue_port,
            wildcard: flags.wildcard,
            dnat: flags.dnat,
            prefix_services: flags.prefix_services,
            ends_tunnels: flags.ends_tunnels,
        };
        let settings_stand = programmed.snat_addresses == target.snat_addresses
            && programmed.snat_ports.as_ref() == Some(&target.snat_ports)
            && programmed.gue_port == target.gue_port
            && before == meanwhile;

        let mut steps = Vec::new();
        if !settings_stand {
            steps.push(settings(meanwhile));
        }
        steps.extend(self.write_backends);
        steps.extend(self.replies.writes(programmed));
        steps.extend(self.quic.writes(&programmed.quic));
        steps.extend(self.write_rings);
        steps.extend(self.guards.writes(programmed));
        steps.extend(self.clients.writes(programmed));
        let ends = target.tunnel_ends.difference(&programmed.tunnel_ends);
        steps.extend(ends.map(|key| Step::WriteTunnelEnd { key: *key }));
        steps.extend(self.write_services);
        // After the service itself, whose counters are reset when it is added.
        let aliases = self.aliases.iter();
        let changed = aliases.filter(|(key, record)| programmed.aliases.get(key) != Some(record));
        steps.extend(changed.map(|(key, record)| Step::WriteService {
            key: *key,
            service: *record,
        }));
        steps.extend(self.clients.removals(programmed));
        steps.extend(self.stop_backends);
        // Of a service that goes, its further ports go first.
        let gone = programmed
            .aliases
            .iter()
            .chain(&programmed.services)
            .filter(|(key, _)| !self.kept_services.contains(key) && !self.aliases.contains_key(key));
        steps.extend(gone.map(|(key, record)| Step::RemoveService {
            key: *key,
            id: record.id,
        }));
        steps.extend(self.quic.removals(&programmed.quic));
        let rings = programmed
            .rings
            .keys()
            .filter(|ring| !self.kept_rings.contains(ring));
        let backends = programmed
            .backends
            .keys()
            .filter(|id| !self.kept_backends.contains(id));
        let ends = programmed.tunnel_ends.difference(&target.tunnel_ends);
        let freed: Vec<Step> = rings
            .map(|ring| Step::RemoveRing { ring: *ring })
            .chain(self.replies.removals(programmed))
            .chain(backends.map(|id| Step::FreeBackend { id: *id }))
            .chain(self.guards.removals(programmed))
            .chain(ends.map(|key| Step::RemoveTunnelEnd { key: *key }))
            .collect();
        if !freed.is_empty() {
            steps.push(Step::Barrier);
            steps.extend(freed);
        }
        if meanwhile != now {
            steps.push(settings(now));
        }
        steps
    }
}

/// How packets of a service are looked at.
fn flags(service: &TargetService) -> u16 {
    let modes = service.backends.values().map(|backend| backend.mode);
    let by_mode = modes.map(|mode| match mode {
        Mode::Nat => TRANSLATES,
        Mode::Dnat | Mode::L2dsr | Mode::Ipip | Mode::Gue => FORWARDS,
    });
    let all = if service.records_all() { TRACKS_ALL } else { 0 };
    let quic = if service.quic.is_some() { QUIC } else { 0 };
    let by = match service.affinity {
        Affinity::None => 0,
        Affinity::Source => BY_SOURCE,
        Affinity::Port => BY_PORT,
    };
    let in_turn = match service.algorithm {
        Algorithm::Maglev => 0,
        Algorithm::RoundRobin => IN_TURN,
    };
    let shares = if service.shares_address { SHARES_ADDRESS } else { 0 };
    by_mode.fold(all | quic | by | in_turn | shares, |flags, flag| flags | flag)
}

/// Whether recorded flows may go to a backend.
const fn lives(backend: &TargetBackend) -> bool {
    backend.alive || backend.weight > 0
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}
