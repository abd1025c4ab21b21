//! One slot of a ring, some backends, and flows: the code that the XDP program and the daemon run, in any order.

use lb_common::{
    backend::{BackendId, Generation},
    ring_slot::{Phase, Pick, RingSlot},
    track::{self, FlowRecord, FlowTables, Table, Tick},
};

const BACKENDS: usize = 4;
const FLOWS: usize = 8;
const NOW: Tick = Tick(0);

/// A flow from its client's side.
#[derive(Clone, Copy, Default)]
struct Flow {
    /// The backend that has its connection, and the backend's generation.
    server: Option<(BackendId, Generation)>,
    /// It has sent more than the packet that opens.
    goes_on: bool,
    /// It has sent something since its slot changed hands last.
    in_window: bool,
    tracked: Option<FlowRecord>,
    opening: Option<FlowRecord>,
    seen: Option<FlowRecord>,
}

/// All of it.
struct World {
    slot: RingSlot,
    /// By number less one; a dead one has none.
    lives: [Option<Generation>; BACKENDS],
    born: u16,
    flows: [Flow; FLOWS],
}

/// The tables as the packets of one flow see them.
struct View<'a> {
    lives: &'a [Option<Generation>; BACKENDS],
    flow: &'a mut Flow,
}

fn life(lives: &[Option<Generation>; BACKENDS], backend: BackendId) -> Option<Generation> {
    *lives.get(usize::from(backend.0).checked_sub(1)?)?
}

impl View<'_> {
    fn table(&mut self, table: Table) -> &mut Option<FlowRecord> {
        match table {
            Table::Tracked => &mut self.flow.tracked,
            Table::Opening => &mut self.flow.opening,
            Table::Seen => &mut self.flow.seen,
        }
    }
}

impl FlowTables for View<'_> {
    fn living(&self, backend: BackendId) -> Option<Generation> {
        life(self.lives, backend)
    }
    fn find(&mut self, table: Table) -> Option<FlowRecord> {
        *self.table(table)
    }
    fn insert(&mut self, table: Table, record: FlowRecord) -> bool {
        *self.table(table) = Some(record);
        true
    }
    fn refresh(&mut self, table: Table, _: Tick) {
        assert!(self.table(table).is_some(), "no record to refresh in {table:?}");
    }
    fn remove(&mut self, table: Table) {
        *self.table(table) = None;
    }
}

pub(crate) fn check(history: &[u8]) {
    let mut world = World {
        slot: RingSlot::stable(BackendId(1)),
        lives: [Some(Generation(1)); BACKENDS],
        born: 1,
        flows: [Flow::default(); FLOWS],
    };
    for event in history {
        let (kind, which) = (event >> 4, usize::from(event & 0xf));
        match kind {
            0..9 => world.packet(which % FLOWS),
            9 => world.ask(which % FLOWS),
            10 => world.flows[which % FLOWS].server = None,
            11 => world.give_to(world.living(which)),
            12 => world.give_to(BackendId::NONE),
            13 => world.die(which % BACKENDS, which / BACKENDS),
            14 => world.revive(which % BACKENDS),
            _ => world.window_ends(),
        }
        assert_eq!(RingSlot::from_word(world.slot.to_word()), world.slot);
    }
}

impl World {
    /// A living backend, if there is one: from the one of this number on.
    fn living(&self, which: usize) -> BackendId {
        let numbers = (0..BACKENDS).map(|n| (which + n) % BACKENDS);
        let mut living = numbers.filter(|n| self.lives[*n].is_some());
        living.next().map_or(BackendId::NONE, |n| {
            BackendId(u16::try_from(n + 1).unwrap_or_default())
        })
    }

    /// The flow's server, if it lives on, and the flow is owed to stay with it.
    fn promised(&self, flow: &Flow) -> Option<BackendId> {
        let (server, generation) = flow.server?;
        (life(&self.lives, server) == Some(generation)).then_some(server)
    }

    /// A packet; a SYN where the client has no connection.
    fn packet(&mut self, number: usize) {
        let before = self.flows[number];
        let promised = self.promised(&before);
        // A client whose server died, or does not know the connection, reconnects; so does a client that was silent for
        // too long.
        let opens = promised.is_none();
        if opens {
            self.flows[number].goes_on = false;
        }
        let owner = match self.slot.pick() {
            Pick::Owner(owner) => owner,
            Pick::LookUp => {
                let mut view = View {
                    lives: &self.lives,
                    flow: &mut self.flows[number],
                };
                track::follow(self.slot, opens, NOW, &mut view)
            }
        };
        assert!(
            promised.is_none_or(|server| server == owner),
            "flow {number} of {promised:?} went to {owner:?}, slot {:?}",
            self.slot
        );
        let flow = &mut self.flows[number];
        flow.server = life(&self.lives, owner).map(|generation| (owner, generation));
        flow.goes_on |= !opens;
        flow.in_window = true;
    }

    /// An ICMP error about a packet of the flow's server.
    fn ask(&mut self, number: usize) {
        let promised = self.promised(&self.flows[number]);
        let owner = match self.slot.pick() {
            Pick::Owner(owner) => owner,
            Pick::LookUp => track::peek(
                self.slot,
                false,
                &mut View {
                    lives: &self.lives,
                    flow: &mut self.flows[number],
                },
            ),
        };
        assert!(promised.is_none_or(|server| server == owner));
    }

    /// A new ring gives the slot to a living backend, or to none.
    fn give_to(&mut self, owner: BackendId) {
        let lives = |backend| life(&self.lives, backend).is_some();
        let before = self.slot;
        self.slot = before.next(owner, lives(before.current), lives(before.previous));
        assert_eq!(self.slot.current, owner);
        assert!(self.slot.previous == BackendId::NONE || lives(self.slot.previous));
        if self.slot.phase() == Phase::Transition && self.slot != before {
            for flow in &mut self.flows {
                flow.in_window = false;
            }
        }
    }

    /// A backend dies, and the ring is built without it.
    fn die(&mut self, which: usize, heir: usize) {
        self.lives[which] = None;
        let current = usize::from(self.slot.current.0);
        let owner = if current == which + 1 {
            self.living(heir)
        } else {
            self.slot.current
        };
        self.give_to(owner);
    }

    fn revive(&mut self, which: usize) {
        if self.lives[which].is_none() {
            self.born += 1;
            self.lives[which] = Some(Generation(self.born));
        }
    }

    /// The window of the last change is over, and a walk through the tables has ended.
    fn window_ends(&mut self) {
        if self.slot.phase() == Phase::Transition {
            self.slot = RingSlot::pinned(self.slot.current);
            // The promise does not cover flows that were silent all the time.
            for flow in self.flows.iter_mut().filter(|flow| !flow.in_window) {
                flow.server = None;
            }
            return;
        }
        let lives = self.lives;
        let current = self.slot.current;
        let mut foreign = false;
        for flow in &mut self.flows {
            for record in [&mut flow.tracked, &mut flow.opening, &mut flow.seen] {
                let dead = record.is_some_and(|r| life(&lives, r.backend) != Some(r.generation));
                let of_slot = record.is_some_and(|r| r.backend == current);
                if dead || of_slot {
                    *record = None;
                }
                foreign |= record.is_some();
            }
        }
        if self.slot.phase() == Phase::Pinned && !foreign && current != BackendId::NONE {
            self.slot = RingSlot::stable(current);
        }
    }
}
