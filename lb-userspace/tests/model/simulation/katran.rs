//! Katran's scheme, for comparison: consistent hashing with a table of recent flows per core (`balancer_kern.c`).
//!
//! A SYN is hashed and recorded. Another packet is looked up, and hashed and recorded where it is unknown. A core that
//! met more unknown flows than its limit within a second records no more until the second is over. Two things are
//! nicer here than there: a record of a dead backend counts as none, and a flow never changes its core.

use std::time::Duration;

use lb_common::{
    backend::{BackendId, Generation},
    ring_slot,
};

use super::{Balancer, Costs, FlowKey, hash, lru::Lru, random::mix, world::World};

/// Unknown flows a second on one core, above which it records none (`MAX_CONN_RATE`).
const UNKNOWN_PER_SECOND_MAX: u32 = 125_000;

/// Cores that share the traffic.
const CORES: usize = 4;

/// Age at which a UDP record counts no more (`LRU_UDP_TIMEOUT`).
const UDP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Entry {
    backend: BackendId,
    generation: Generation,
    used: Duration,
}

#[derive(Debug)]
struct Core {
    flows: Lru<Entry>,
    second_began: Duration,
    unknown: u32,
}

/// The balancer.
#[derive(Debug)]
pub(crate) struct Katran {
    udp: bool,
    owners: Vec<BackendId>,
    living: Vec<(BackendId, Generation)>,
    cores: Vec<Core>,
    costs: Costs,
}

impl Katran {
    /// A balancer with a ring of `size` slots over the backends of `world`, and room for `records` flows.
    pub(crate) fn new(world: &World, size: u32, records: usize, udp: bool) -> Self {
        let core = |_| Core {
            flows: Lru::new(records / CORES),
            second_began: Duration::ZERO,
            unknown: 0,
        };
        let mut new = Self {
            udp,
            owners: vec![BackendId::NONE; size as usize],
            living: Vec::new(),
            cores: (0..CORES).map(core).collect(),
            costs: Costs::default(),
        };
        new.changed(world, Duration::ZERO);
        new
    }
}

impl Core {
    fn floods(&mut self, now: Duration) -> bool {
        if now - self.second_began > Duration::from_secs(1) {
            (self.second_began, self.unknown) = (now, 1);
            return false;
        }
        self.unknown += 1;
        self.unknown > UNKNOWN_PER_SECOND_MAX
    }
}

impl Balancer for Katran {
    fn changed(&mut self, world: &World, _: Duration) {
        self.owners = world.owners(self.owners.len() as u32);
        let servers = world.servers().iter();
        self.living = servers
            .filter_map(|server| Some((server.id, world.living(server.id)?)))
            .collect();
    }

    fn restarted(&mut self, _: Duration) {}

    fn packet(&mut self, flow: FlowKey, opens: bool, now: Duration) -> BackendId {
        let Self {
            udp,
            owners,
            living,
            cores,
            costs,
        } = self;
        // The core is the network card's choice, by a hash of its own.
        let core = &mut cores[(mix(!flow) % CORES as u64) as usize];
        if !opens {
            costs.look_ups += 1;
            if let Some(entry) = core.flows.get(flow)
                && living.contains(&(entry.backend, entry.generation))
                && !(*udp && now - entry.used > UDP_TIMEOUT)
            {
                entry.used = now;
                return entry.backend;
            }
        }
        let floods = core.floods(now);
        let backend = owners[ring_slot::index(hash(flow), owners.len() as u32) as usize];
        if !floods && let Some((_, generation)) = living.iter().find(|(id, _)| *id == backend) {
            core.flows.insert(
                flow,
                Entry {
                    backend,
                    generation: *generation,
                    used: now,
                },
            );
        }
        backend
    }

    fn upkeep(&mut self, _: &World, _: Duration) {
        let records = self.cores.iter().map(|core| core.flows.len()).sum();
        self.costs.records = self.costs.records.max(records);
    }

    fn costs(&self) -> Costs {
        self.costs
    }
}
