//! What the maps of an earlier daemon say about backends: a restart goes on from there.

use std::{collections::BTreeSet, time::Instant};

use super::{
    lingering::Lingering,
    verdicts::{backends, is_checked},
};
use crate::{
    health::{CheckId, Health, agent::AgentView},
    plan::Programmed,
    state::{
        agents,
        backend::{Admin, Backend},
        desired::Desired,
        down_grace::DownGrace,
        effective::HealthView,
        ring_sizes::RingSizes,
        service::Service,
        slow_start::SlowStart,
    },
};

/// What an earlier daemon left.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inherited {
    /// Verdicts of its checks.
    pub health: HealthView,
    /// What agents had said.
    pub agents: AgentView,
    /// Backends that are not desired any more and may finish their flows.
    pub lingering: Vec<Lingering>,
    /// How far backends had come that begin slowly.
    pub slow_start: SlowStart,
    /// Backends that are down and still have their flows.
    pub down: DownGrace,
    /// Sizes of the rings.
    pub ring_sizes: RingSizes,
}

/// Reads an earlier daemon's verdicts and removed backends from what it programmed, beside what agents had `said`.
pub fn inherit(desired: &Desired, programmed: &Programmed, mut said: AgentView) -> Inherited {
    said.retain(|id, _| agents::wants(desired, id));
    let now = Instant::now();
    Inherited {
        health: health(&agents::in_force(desired, &said), &said, programmed),
        agents: said,
        lingering: lingering(desired, programmed, now),
        slow_start: slow_start(desired, programmed, now),
        down: down_grace(desired, programmed, now),
        ring_sizes: ring_sizes(programmed),
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

/// Who takes new flows was up; who takes none, though the operator and its agent want it to, was down. `desired` is what
/// agents make of it.
fn health(desired: &Desired, said: &AgentView, programmed: &Programmed) -> HealthView {
    let works = |id: &CheckId| said.get(id).is_none_or(|said| said.word.state.is_up());
    let mut view = HealthView::new();
    for (id, service, backend) in backends(desired).filter(|(_, service, _)| is_checked(service)) {
        let Some(found) = found(programmed, service, backend) else {
            continue;
        };
        // A backup takes no new flows while it is well: nothing is known of it then.
        let in_reserve = backend.backup && found.alive;
        if found.takes_flows {
            view.insert(id, Health::Up);
        } else if backend.weight > 0 && backend.admin == Admin::Enabled && works(&id) && !in_reserve {
            view.insert(id, Health::Down);
        }
    }
    view
}

/// Backends that take new flows, with what is held back from them.
fn slow_start(desired: &Desired, programmed: &Programmed, now: Instant) -> SlowStart {
    let mut known = SlowStart::default();
    for (_, service, backend) in backends(desired).filter(|(_, service, _)| !service.slow_start.is_zero()) {
        if let Some(found) = found(programmed, service, backend).filter(|found| found.takes_flows) {
            known.inherit(service, backend.address, found.held_back, now);
        }
    }
    known
}

/// Backends that have their flows. Those of them that are down keep them for their time, which begins anew.
fn down_grace(desired: &Desired, programmed: &Programmed, now: Instant) -> DownGrace {
    let mut known = DownGrace::default();
    for (_, service, backend) in backends(desired).filter(|(_, service, _)| is_checked(service)) {
        if found(programmed, service, backend).is_some_and(|found| found.alive) {
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

fn found(programmed: &Programmed, service: &Service, backend: &Backend) -> Option<Found> {
    let record = programmed.services.get(&service.key)?;
    let (number, there) = programmed
        .backends
        .iter()
        .find(|(_, there)| there.service == record.id && there.address == backend.address)?;
    let ring = programmed.rings.get(&record.ring);
    Some(Found {
        takes_flows: ring.is_some_and(|slots| slots.iter().any(|slot| slot.current == *number)),
        alive: there.alive,
        held_back: there.held_back,
    })
}

/// Backends that still have a right to their flows but are not desired any more. Their time begins anew.
fn lingering(desired: &Desired, programmed: &Programmed, now: Instant) -> Vec<Lingering> {
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
            Lingering::found(
                service.name.clone(),
                service.key,
                there.address,
                there.mode,
                transition,
                now,
            )
        }));
    }
    found.retain(|lingering| !lingering.overtaken(desired));
    found
}
