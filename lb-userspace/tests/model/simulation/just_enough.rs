//! Just-enough tracking: the code of `lb_common` and `lb_userspace` over simulated maps.

use std::{collections::HashMap, time::Duration};

use lb_common::{
    backend::{BackendId, Generation},
    hash::HashBy,
    ring_slot::{self, Pick, RingSlot},
    track::{self, FlowRecord, FlowTables, Table, Tick},
};
use lb_userspace::transition::{self, Ages, Fate, Rules, Sweep};

use super::{Balancer, Costs, FlowKey, Memory, hash, lru::Lru, random::KeyHash, world::World};

/// The kernel's maps.
#[derive(Debug)]
struct Maps {
    backends: HashMap<BackendId, Generation>,
    tracked_max: usize,
    tracked: HashMap<FlowKey, FlowRecord, KeyHash>,
    opening: Lru<FlowRecord>,
    seen: Lru<FlowRecord>,
}

/// The maps as the packets of one flow see them.
struct View<'a> {
    maps: &'a mut Maps,
    flow: FlowKey,
}

impl FlowTables for View<'_> {
    fn living(&self, backend: BackendId) -> Option<Generation> {
        self.maps.backends.get(&backend).copied()
    }

    fn find(&mut self, table: Table) -> Option<FlowRecord> {
        match table {
            Table::Tracked => self.maps.tracked.get(&self.flow).copied(),
            Table::Opening => self.maps.opening.get(self.flow).copied(),
            Table::Seen => self.maps.seen.get(self.flow).copied(),
        }
    }

    fn insert(&mut self, table: Table, record: FlowRecord) -> bool {
        match table {
            Table::Tracked => {
                let full = self.maps.tracked.len() == self.maps.tracked_max;
                if full && !self.maps.tracked.contains_key(&self.flow) {
                    return false;
                }
                self.maps.tracked.insert(self.flow, record);
            }
            Table::Opening => self.maps.opening.insert(self.flow, record),
            Table::Seen => self.maps.seen.insert(self.flow, record),
        }
        true
    }

    fn refresh(&mut self, table: Table, now: Tick) {
        let record = match table {
            Table::Tracked => self.maps.tracked.get_mut(&self.flow),
            Table::Opening => self.maps.opening.get(self.flow),
            Table::Seen => self.maps.seen.get(self.flow),
        };
        if let Some(record) = record {
            record.last_seen = now;
        }
    }

    fn remove(&mut self, table: Table) {
        match table {
            Table::Tracked => drop(self.maps.tracked.remove(&self.flow)),
            Table::Opening => self.maps.opening.remove(self.flow),
            Table::Seen => self.maps.seen.remove(self.flow),
        }
    }
}

/// A sweep under way: it takes a while, during which packets and changes come.
#[derive(Debug)]
struct Walk {
    /// The ring when it began.
    slots: Vec<RingSlot>,
    began: Duration,
    /// Records of the first table: slot, record, and whether its backend lived.
    met: Vec<(u32, FlowRecord, bool)>,
}

/// The balancer.
#[derive(Debug)]
pub(crate) struct JustEnough {
    window: Duration,
    slots: Vec<RingSlot>,
    ages: Ages,
    maps: Maps,
    walk: Option<Walk>,
    costs: Costs,
}

impl JustEnough {
    /// A balancer with a ring of `size` slots over the backends of `world`.
    pub(crate) fn new(world: &World, size: u32, window: Duration, memory: Memory) -> Self {
        let mut new = Self {
            window,
            slots: transition::fresh(&world.owners(size)),
            ages: Ages::default(),
            maps: Maps {
                backends: HashMap::new(),
                tracked_max: memory.tracked,
                tracked: HashMap::default(),
                opening: Lru::new(memory.opening),
                seen: Lru::new(memory.seen),
            },
            walk: None,
            costs: Costs::default(),
        };
        new.write_backends(world);
        new
    }

    /// The ring.
    pub(crate) fn slots(&self) -> &[RingSlot] {
        &self.slots
    }

    /// Records in all tables.
    pub(crate) fn records(&self) -> usize {
        self.maps.tracked.len() + self.maps.opening.len() + self.maps.seen.len()
    }

    fn rules(&self) -> Rules {
        Rules {
            window: self.window,
            half_open: Duration::from_secs(60),
            keep: self.window * transition::RECORD_WINDOWS,
            all: false,
            hash_by: HashBy::Tuple,
        }
    }

    fn slot_of(&self, flow: FlowKey) -> u32 {
        ring_slot::index(hash(flow), self.slots.len() as u32)
    }

    fn write_backends(&mut self, world: &World) {
        let servers = world.servers().iter();
        self.maps.backends = servers
            .filter_map(|server| Some((server.id, world.living(server.id)?)))
            .collect();
    }

    fn write_ring(&mut self, slots: Vec<RingSlot>, now: Duration) {
        self.ages.written(&self.slots, &slots, now);
        self.slots = slots;
    }

    /// All entries of a table, with the inputs of a sweep.
    fn table(&self, table: Table) -> Vec<(FlowKey, FlowRecord, bool)> {
        let lives = |record: &FlowRecord| self.maps.backends.get(&record.backend) == Some(&record.generation);
        let with_life = |(flow, record): (FlowKey, FlowRecord)| (flow, record, lives(&record));
        match table {
            Table::Tracked => self
                .maps
                .tracked
                .iter()
                .map(|(k, v)| with_life((*k, *v)))
                .collect(),
            Table::Opening => self.maps.opening.iter().map(with_life).collect(),
            Table::Seen => self.maps.seen.iter().map(with_life).collect(),
        }
    }

    /// Walks one table for `sweep`, deletes the records that it releases, and returns all records.
    fn walk_table(&mut self, table: Table, sweep: &mut Sweep, now: Duration) -> Vec<(u32, FlowRecord, bool)> {
        let mut met = Vec::new();
        for (flow, record, lives) in self.table(table) {
            let slot = self.slot_of(flow);
            match sweep.flow(slot, record, lives, Tick::from_secs(now.as_secs())) {
                Fate::Keep => met.push((slot, record, lives)),
                Fate::Delete => View {
                    maps: &mut self.maps,
                    flow,
                }
                .remove(table),
            }
        }
        met
    }

    /// The first half of a walk: the small tables.
    fn begin_walk(&mut self, now: Duration) {
        let slots = self.slots.clone();
        let mut sweep = Sweep::begin(&slots, self.rules(), now);
        let [first, second, _] = Table::SWEEP_ORDER;
        let mut met = self.walk_table(first, &mut sweep, now);
        met.extend(self.walk_table(second, &mut sweep, now));
        self.walk = Some(Walk {
            slots,
            began: now,
            met,
        });
    }

    /// The other half, and the ring that follows.
    fn end_walk(&mut self, walk: &Walk, now: Duration) {
        let mut sweep = Sweep::begin(&walk.slots, self.rules(), walk.began);
        for (slot, record, lives) in &walk.met {
            sweep.flow(*slot, *record, *lives, Tick::from_secs(walk.began.as_secs()));
        }
        let [_, _, last] = Table::SWEEP_ORDER;
        self.walk_table(last, &mut sweep, now);
        let next = sweep.end().finish(&self.slots, &self.ages, self.window, now);
        self.write_ring(next, now);
    }
}

impl Balancer for JustEnough {
    fn changed(&mut self, world: &World, now: Duration) {
        let owners = world.owners(self.slots.len() as u32);
        let next = transition::rebuild(&self.slots, &owners, |id| world.living(id).is_some());
        self.write_ring(next, now);
        self.write_backends(world);
    }

    fn restarted(&mut self, now: Duration) {
        self.ages = Ages::restarted(&self.slots, now);
        self.walk = None;
    }

    fn packet(&mut self, flow: FlowKey, opens: bool, now: Duration) -> BackendId {
        let slot = self.slots[self.slot_of(flow) as usize];
        match slot.pick() {
            Pick::Owner(backend) => backend,
            Pick::LookUp => {
                self.costs.look_ups += 1;
                let mut view = View {
                    maps: &mut self.maps,
                    flow,
                };
                let backend = track::follow(slot, opens, Tick::from_secs(now.as_secs()), &mut view);
                self.costs.records = self.costs.records.max(self.records());
                backend
            }
        }
    }

    fn upkeep(&mut self, _: &World, now: Duration) {
        match self.walk.take() {
            None => self.begin_walk(now),
            Some(walk) => self.end_walk(&walk, now),
        }
    }

    fn costs(&self) -> Costs {
        self.costs
    }
}
