//! Backends as their operator and fate have them.

use std::{collections::BTreeMap, time::Duration};

use lb_common::backend::{BackendId, Generation};
use lb_userspace::ring::{self, Share};

use super::random::{Random, mix};

/// A change. `pick` selects one of the backends that it can apply to, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// A new backend.
    Add { weight: u32 },
    /// It leaves the ring, and is taken out for good when the window has passed.
    Remove { pick: u16 },
    /// It is taken out at once.
    RemoveNow { pick: u16 },
    /// It dies.
    Die { pick: u16 },
    /// A dead one comes back.
    Recover { pick: u16 },
    /// Another weight, not 0.
    Reweight { pick: u16, weight: u32 },
    /// No new flows.
    Drain { pick: u16 },
    /// New flows again.
    Undrain { pick: u16 },
    /// The daemon is restarted.
    Restart,
}

impl Change {
    /// Any of them.
    pub(crate) fn random(random: &mut Random) -> Self {
        let pick = random.below(1 << 16) as u16;
        let weight = if random.chance(50) {
            100
        } else {
            1 + random.below(300) as u32
        };
        match random.below(21) {
            0..3 => Self::Add { weight },
            3..5 => Self::Remove { pick },
            5 => Self::RemoveNow { pick },
            6..8 => Self::Die { pick },
            8..11 => Self::Recover { pick },
            11..14 => Self::Reweight { pick, weight },
            14..17 => Self::Drain { pick },
            17..20 => Self::Undrain { pick },
            _ => Self::Restart,
        }
    }
}

/// A backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Server {
    /// The same on every node.
    pub(crate) identity: u64,
    /// This node's number for it.
    pub(crate) id: BackendId,
    /// How often the number was given out, or its holder came back to life.
    pub(crate) generation: Generation,
    weight: u32,
    draining: bool,
    alive: bool,
    /// When it is taken out.
    leaves: Option<Duration>,
}

impl Server {
    fn active(&self) -> bool {
        self.alive && !self.draining && self.leaves.is_none()
    }
}

/// All backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    servers: Vec<Server>,
    generations: BTreeMap<BackendId, Generation>,
    born: u64,
}

impl World {
    /// A world of `count` equal backends.
    pub(crate) fn new(count: u32) -> Self {
        let mut world = Self::default();
        for _ in 0..count {
            world.change(Change::Add { weight: 100 }, Duration::ZERO, Duration::ZERO);
        }
        world
    }

    /// The same backends as another node has them, with other numbers.
    pub(crate) fn renumbered(&self) -> Self {
        let mut world = Self {
            servers: self.servers.clone(),
            generations: BTreeMap::new(),
            born: self.born,
        };
        for (server, id) in world.servers.iter_mut().rev().zip(100..) {
            server.id = BackendId(id);
        }
        world
    }

    /// The backends that are there, dead or alive.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The generation of a living backend.
    pub(crate) fn living(&self, id: BackendId) -> Option<Generation> {
        let mut servers = self.servers.iter();
        servers
            .find(|server| server.id == id && server.alive)
            .map(|server| server.generation)
    }

    /// The owners of the slots of a ring of this size; none if no backend takes new flows.
    pub(crate) fn owners(&self, size: u32) -> Vec<BackendId> {
        let active: Vec<_> = self.servers.iter().filter(|server| server.active()).collect();
        let shares: Vec<_> = active
            .iter()
            .map(|server| Share {
                identity: server.identity,
                weight: server.weight,
            })
            .collect();
        let owners = ring::maglev(&shares, size).unwrap();
        if owners.is_empty() {
            return vec![BackendId::NONE; size as usize];
        }
        owners
            .into_iter()
            .map(|owner| active[usize::from(owner)].id)
            .collect()
    }

    /// Lets something happen. Returns whether it did.
    pub(crate) fn change(&mut self, change: Change, now: Duration, window: Duration) -> bool {
        match change {
            Change::Add { weight } => {
                self.born += 1;
                let id = self.free_id();
                let server = Server {
                    identity: mix(self.born),
                    id,
                    generation: self.next_generation(id),
                    weight,
                    draining: false,
                    alive: true,
                    leaves: None,
                };
                self.servers.push(server);
                true
            }
            Change::Remove { pick } => self.pick(pick, Server::active, |server| {
                // A little longer than its slots' window, as the daemon has it.
                server.leaves = Some(now + window + Duration::from_secs(2));
            }),
            Change::RemoveNow { pick } => self.pick(pick, |_| true, |server| server.leaves = Some(now)),
            Change::Die { pick } => self.pick(pick, |server| server.alive, |server| server.alive = false),
            Change::Recover { pick } => self.pick(
                pick,
                |server| !server.alive && server.leaves.is_none(),
                |server| {
                    server.alive = true;
                    server.generation.0 += 1;
                },
            ),
            Change::Reweight { pick, weight } => {
                self.pick(pick, Server::active, |server| server.weight = weight)
            }
            Change::Drain { pick } => self.pick(pick, Server::active, |server| server.draining = true),
            Change::Undrain { pick } => self.pick(
                pick,
                |server| server.draining && server.leaves.is_none(),
                |server| server.draining = false,
            ),
            Change::Restart => true,
        }
    }

    fn pick(&mut self, pick: u16, can: impl Fn(&Server) -> bool, change: impl Fn(&mut Server)) -> bool {
        let mut candidates: Vec<_> = self.servers.iter_mut().filter(|server| can(server)).collect();
        let count = candidates.len();
        if count == 0 {
            return false;
        }
        let server = &mut candidates[usize::from(pick) % count];
        change(server);
        let (id, generation) = (server.id, server.generation);
        self.generations.insert(id, generation);
        true
    }

    /// Removes backends whose time is over. Returns whether there were any.
    pub(crate) fn bury(&mut self, now: Duration) -> bool {
        let before = self.servers.len();
        self.servers
            .retain(|server| server.leaves.is_none_or(|leaves| leaves > now));
        self.servers.len() != before
    }

    /// The lowest free id, so that ids are soon in new hands.
    fn free_id(&self) -> BackendId {
        let mut ids = (1..).map(BackendId);
        ids.find(|id| self.servers.iter().all(|server| server.id != *id))
            .unwrap()
    }

    fn next_generation(&mut self, id: BackendId) -> Generation {
        let generation = self.generations.entry(id).or_default();
        generation.0 += 1;
        *generation
    }
}
