//! State that an earlier daemon left in its maps and in the store, from which a restart continues.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use super::{
    removed::{RemovedBackend, is_about},
    verdicts::{backends, finds_out, wants},
};
use crate::{
    health::{
        CheckId, Health, Recalled,
        agent::{AgentAdmin, AgentAnswer, AgentReport, AgentState, AgentView, MAX_PERCENT},
    },
    plan::{Programmed, target::Standings},
    state::{
        agents, desired::Desired, down_grace::DownGrace, effective::HealthView, ring_sizes::RingSizes,
        service::ServiceKey, slow_start::SlowStart, store::Record,
    },
};

/// State of an earlier daemon.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inherited {
    /// Health states that still hold.
    pub health: HealthView,
    /// Memories of its checks, for the checks that continue.
    pub memories: Recalled,
    /// The last reports of agents.
    pub agents: AgentView,
    /// Backends that are not desired any more and may finish their flows.
    pub lingering: Vec<RemovedBackend>,
    /// Progress of backends in slow start.
    pub slow_start: SlowStart,
    /// Backends that are down and still have their flows.
    pub down: DownGrace,
    /// Sizes of the rings.
    pub ring_sizes: RingSizes,
    /// The state of desired backends in its maps. Never a health state, since a drained backend takes no flows either.
    pub standings: Standings,
    /// Backends that got no packets before this start, until their first health state.
    pub unverified: BTreeSet<CheckId>,
}

/// Continues from the state that an earlier daemon `programmed`, the records that it stored (`known`), and the last
/// reports of agents (`reports`).
pub fn inherit(
    desired: &Desired,
    programmed: &Programmed,
    known: &[Record],
    mut reports: AgentView,
) -> Inherited {
    reports.retain(|id, _| agents::wants(desired, id));
    let now = Instant::now();
    let is_fresh = programmed.services.is_empty();
    let there = in_maps(desired, programmed);
    let memories = memories(desired, known, is_fresh);
    let verdicts = memories
        .iter()
        .map(|(id, (_, memory))| (id.clone(), memory.verdict()));
    let health: HealthView = verdicts
        .filter(|(_, health)| *health != Health::Unchecked)
        .collect();
    let checked = backends(desired).filter(|(_, service, _)| finds_out(service));
    let unverified = checked.map(|(id, ..)| id).filter(|id| !health.contains_key(id));
    let mut down = down_grace(desired, &there, now);
    for (id, (_, memory)) in &memories {
        down.note_breaker(id, memory.is_down_by_breaker());
    }
    Inherited {
        unverified: if is_fresh {
            unverified.collect()
        } else {
            BTreeSet::new()
        },
        health,
        memories,
        agents: reports,
        lingering: lingering(desired, programmed, known, now),
        slow_start: slow_start(desired, &there, now),
        down,
        ring_sizes: ring_sizes(programmed),
        standings: there
            .into_iter()
            .map(|(place, found)| (place, found.takes_flows))
            .collect(),
    }
}

/// Services without a backend that takes flows have no ring, and so no size to keep.
fn ring_sizes(programmed: &Programmed) -> RingSizes {
    let sizes = programmed
        .services
        .iter()
        .map(|(key, record)| (*key, record.ring_size));
    RingSizes::inherited(sizes.filter(|(_, size)| *size > 0))
}

/// Memories of checks of backends that still exist at the same address. If nothing was forwarded meanwhile, their age
/// is unknown, so only the parts with an expiry are kept.
fn memories(desired: &Desired, known: &[Record], is_fresh: bool) -> Recalled {
    let of = |record: &Record| {
        let Record::Check {
            service,
            backend,
            target,
            memory,
        } = record
        else {
            return None;
        };
        let id = Record::id(service, backend)?;
        let there = desired.backend(&id.0, &id.1).ok()?;
        let memory = memory.clone();
        let memory = if is_fresh { memory.after_a_pause() } else { memory };
        (wants(desired, &id) && there.address == *target).then_some((id, (*target, memory)))
    };
    known.iter().filter_map(of).collect()
}

/// The reports of agents among the records `known`. Unknown words are ignored.
pub fn stored_agent_updates(known: &[Record]) -> AgentView {
    let of = |record: &Record| {
        let Record::Agent {
            service,
            backend,
            admin,
            state,
            percent,
        } = record
        else {
            return None;
        };
        let word = AgentAnswer {
            admin: AgentAdmin::from_word(admin)?,
            state: AgentState::from_word(state)?,
            percent: *percent.min(&MAX_PERCENT),
        };
        let updates = AgentReport {
            word,
            ..AgentReport::default()
        };
        Some((Record::id(service, backend)?, updates))
    };
    known.iter().filter_map(of).collect()
}

/// The records of `known` that a next start may need.
pub fn still_needed(desired: &Desired, known: Vec<Record>) -> Vec<Record> {
    let addresses: BTreeSet<SocketAddr> = backends(desired).map(|(_, _, backend)| backend.address).collect();
    let is_needed = |record: &Record| match record {
        Record::Check { service, backend, .. } => {
            Record::id(service, backend).is_some_and(|id| wants(desired, &id))
        }
        Record::Report { target, .. } => addresses.contains(target),
        Record::Agent { service, backend, .. } => {
            Record::id(service, backend).is_some_and(|id| agents::wants(desired, &id))
        }
        Record::Removed { target, .. } => !addresses.contains(target),
    };
    known.into_iter().filter(is_needed).collect()
}

/// Backends that take new flows, with the weight withheld from them.
fn slow_start(desired: &Desired, there: &InMaps, now: Instant) -> SlowStart {
    let mut known = SlowStart::default();
    for (_, service, backend) in backends(desired).filter(|(_, service, _)| !service.slow_start.is_zero()) {
        let found = there.get(&(service.key, backend.address));
        if let Some(found) = found.filter(|found| found.takes_flows) {
            known.inherit(service, backend.address, found.held_back, now);
        }
    }
    known
}

/// Backends that have their flows. Those that are down keep them for the full time again.
fn down_grace(desired: &Desired, there: &InMaps, now: Instant) -> DownGrace {
    let mut known = DownGrace::default();
    for (_, service, backend) in backends(desired).filter(|(_, service, _)| service.is_checked()) {
        let found = there.get(&(service.key, backend.address));
        if found.is_some_and(|found| found.alive) {
            known.inherit(service, backend.address, now);
        }
    }
    known
}

/// A desired backend in the maps.
struct Found {
    takes_flows: bool,
    alive: bool,
    held_back: u8,
}

/// Desired backends in the maps, by service and address.
type InMaps = BTreeMap<(ServiceKey, SocketAddr), Found>;

/// Finds the desired backends in the maps, each map read once: there may be thousands of services and backends.
fn in_maps(desired: &Desired, programmed: &Programmed) -> InMaps {
    let mut numbers = BTreeMap::new();
    for (number, there) in &programmed.backends {
        numbers.insert((there.service, there.address), (number, there));
    }
    let mut found = InMaps::new();
    for service in desired.services.values() {
        let Some(record) = programmed.services.get(&service.key) else {
            continue;
        };
        let slots = programmed
            .rings
            .get(&record.ring)
            .into_iter()
            .flat_map(|slots| slots.iter());
        let takes_flows: BTreeSet<_> = slots.map(|slot| slot.current).collect();
        for backend in &service.backends {
            if let Some((number, there)) = numbers.get(&(record.id, backend.address)) {
                let there = Found {
                    takes_flows: takes_flows.contains(number),
                    alive: there.alive,
                    held_back: there.held_back,
                };
                found.insert((service.key, backend.address), there);
            }
        }
    }
    found
}

/// Removed backends whose flows may still finish. Without a record their time starts over.
fn lingering(
    desired: &Desired,
    programmed: &Programmed,
    known: &[Record],
    now: Instant,
) -> Vec<RemovedBackend> {
    let wall = SystemTime::now();
    let mut found = Vec::new();
    for service in desired.services.values() {
        let Some(record) = programmed.services.get(&service.key) else {
            continue;
        };
        let kept: BTreeSet<_> = service.backends.iter().map(|backend| backend.address).collect();
        let left = programmed
            .backends
            .values()
            .filter(|there| there.service == record.id && there.alive && !kept.contains(&there.address));
        found.extend(left.filter_map(|there| {
            let transition = desired.settings.transition;
            let found = RemovedBackend::found(
                service.name.clone(),
                service.key,
                there.address,
                there.mode,
                transition,
                now,
            )?;
            match known
                .iter()
                .find(|record| is_about(record, service.key, there.address))
            {
                Some(record) => found.recalled(record, now, wall),
                None => Some(found),
            }
        }));
    }
    found.retain(|lingering| !lingering.overtaken(desired));
    found
}
