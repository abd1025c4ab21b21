//! Clients, their packets, events meanwhile, and whether the promise was kept.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use lb_common::backend::{BackendId, Generation};
use lb_userspace::state::service::Protocol;

use super::{
    Balancer, FlowKey,
    random::{Random, mix},
    world::{Change, World},
};

/// SYNs of flows that send no further packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flood {
    /// Its first second.
    pub(crate) from: u64,
    /// The second after its last.
    pub(crate) until: u64,
    /// SYNs a second.
    pub(crate) per_second: u64,
}

/// The simulation without the balancer.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// UDP flows have no opening packet.
    pub(crate) protocol: Protocol,
    /// How long the promise holds for a silent flow.
    pub(crate) window: Duration,
    /// Clients, each with one flow at a time.
    pub(crate) clients: u64,
    /// The changes, with their times.
    pub(crate) changes: Vec<(Duration, Change)>,
    /// A flood, if any.
    pub(crate) flood: Option<Flood>,
    /// Seconds that the clients go on for.
    pub(crate) seconds: u64,
    /// Decides about the clients' ways.
    pub(crate) seed: u64,
}

/// The result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    /// Packets of the clients.
    pub(crate) packets: u64,
    /// Packets of the flood.
    pub(crate) flood_packets: u64,
    /// Flows that changed their living backend within the window after a packet, having sent at least two. The promise
    /// is that there is none.
    pub(crate) broken: u64,
    /// The same, of flows that had only sent their first packet.
    pub(crate) broken_opening: u64,
    /// Flows that changed their living backend after a longer silence.
    pub(crate) moved_idle: u64,
    /// Packets that went to a dead backend.
    pub(crate) to_dead: u64,
    /// Flows whose backend died.
    pub(crate) lost: u64,
}

/// How a client spends its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Long flows with a packet every second or so.
    Busy,
    /// Long flows with few packets, all within the window of each other.
    Slow,
    /// Long flows, at times silent for up to three windows.
    Idle,
    /// Flows of a few packets.
    Short,
}

#[derive(Debug)]
struct Client {
    habit: Habit,
    random: Random,
    flow: FlowKey,
    /// The backend that answered its packets so far; `None` before the first.
    owner: Option<(BackendId, Generation)>,
    last: Duration,
    sent: u32,
    /// Packets after which the flow ends.
    length: u32,
    /// Its last packet was a SYN.
    opening: bool,
}

impl Client {
    fn new(number: u64, seed: u64) -> Self {
        let mut random = Random::new(mix(seed) ^ number);
        let habit = match random.below(10) {
            0..3 => Habit::Busy,
            3..6 => Habit::Slow,
            6..8 => Habit::Idle,
            _ => Habit::Short,
        };
        let mut new = Self {
            habit,
            random,
            flow: 0,
            owner: None,
            last: Duration::ZERO,
            sent: 0,
            length: 0,
            opening: false,
        };
        new.reconnect();
        new
    }

    fn reconnect(&mut self) {
        self.flow = self.random.next();
        self.owner = None;
        self.sent = 0;
        let longest = match self.habit {
            Habit::Busy => 500,
            Habit::Slow | Habit::Idle => 25,
            Habit::Short => 8,
        };
        self.length = 2 + self.random.below(longest) as u32;
    }

    /// Continues after its backend has died, often from the same port. UDP accepts any backend that answers now.
    fn recover(&mut self, tcp: bool, answers: Option<(BackendId, Generation)>) {
        let flow = self.flow;
        self.reconnect();
        if self.random.chance(70) {
            self.flow = flow;
            self.owner = answers.filter(|_| !tcp);
            self.sent = u32::from(self.owner.is_some());
        }
    }

    /// Sends a packet; counts its outcome.
    fn send(
        &mut self,
        balancer: &mut impl Balancer,
        world: &World,
        now: Duration,
        scenario: &Scenario,
        out: &mut Outcome,
    ) {
        out.packets += 1;
        let tcp = scenario.protocol == Protocol::Tcp;
        // Now and then the first SYN, or its answer, is lost and the client repeats it.
        self.opening = tcp && (self.sent == 0 || (self.sent == 1 && self.opening && self.random.chance(10)));
        let backend = balancer.packet(self.flow, self.opening, now);
        let silent = now - self.last;
        self.last = now;
        let answers = world.living(backend).map(|generation| (backend, generation));
        out.to_dead += u64::from(answers.is_none() && backend != BackendId::NONE);
        match self.owner {
            // Without an answer the client retries later.
            None => {
                self.owner = answers;
                self.sent = u32::from(answers.is_some());
            }
            Some((owner, generation)) if world.living(owner) != Some(generation) => {
                out.lost += 1;
                self.recover(tcp, answers);
            }
            Some((owner, _)) if owner == backend => {
                self.sent += u32::from(!self.opening);
                if self.sent > self.length {
                    self.reconnect();
                }
            }
            // A repeated SYN: no backend has answered yet, so the one that answers now gets the flow.
            Some(_) if self.opening => {
                self.owner = world.living(backend).map(|generation| (backend, generation))
            }
            Some(_) => {
                match (silent > scenario.window, self.sent) {
                    (true, _) => out.moved_idle += 1,
                    (false, 1) => out.broken_opening += 1,
                    (false, _) => out.broken += 1,
                }
                self.reconnect();
            }
        }
    }

    /// Milliseconds until the next packet.
    fn pause(&mut self, window: Duration) -> u64 {
        let window = window.as_millis() as u64;
        if self.opening {
            return 20 + self.random.below(180);
        }
        match self.habit {
            Habit::Busy => 200 + self.random.below(1_800),
            Habit::Slow => window / 4 + self.random.below(window * 3 / 4),
            Habit::Idle if self.random.chance(40) => self.random.below(window * 3),
            Habit::Idle => window / 8 + self.random.below(window / 2),
            Habit::Short => 50 + self.random.below(2_000),
        }
    }
}

/// The next event. Events at the same time happen in the order of the variants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Change(usize),
    Upkeep,
    Flood,
    Client(usize),
}

/// Milliseconds from one upkeep to the next. A walk through the tables takes as long, so that much comes between.
const UPKEEP_MS: u64 = 3_000;

/// Parts of a second in which a flood comes.
const FLOOD_STEPS: u64 = 100;

/// Runs a scenario on a balancer.
pub(crate) fn run(scenario: &Scenario, world: &mut World, balancer: &mut impl Balancer) -> Outcome {
    let mut out = Outcome::default();
    let mut queue = BinaryHeap::new();
    let mut clients: Vec<_> = (0..scenario.clients)
        .map(|n| Client::new(n, scenario.seed))
        .collect();
    for (index, client) in clients.iter_mut().enumerate() {
        // They do not all begin at once.
        let first = client.random.below(scenario.window.as_millis() as u64);
        queue.push(Reverse((first, Event::Client(index))));
    }
    for (index, (at, _)) in scenario.changes.iter().enumerate() {
        queue.push(Reverse((at.as_millis() as u64, Event::Change(index))));
    }
    queue.push(Reverse((UPKEEP_MS, Event::Upkeep)));
    if let Some(flood) = scenario.flood {
        queue.push(Reverse((flood.from * 1_000, Event::Flood)));
    }
    let mut bots = Random::new(!scenario.seed);

    while let Some(Reverse((at, event))) = queue.pop() {
        if at > scenario.seconds * 1_000 {
            break;
        }
        let now = Duration::from_millis(at);
        match event {
            Event::Change(index) => {
                let (_, change) = scenario.changes[index];
                if change == Change::Restart {
                    balancer.restarted(now);
                } else if world.change(change, now, scenario.window) {
                    world.bury(now);
                    balancer.changed(world, now);
                }
            }
            Event::Upkeep => {
                if world.bury(now) {
                    balancer.changed(world, now);
                }
                balancer.upkeep(world, now);
                queue.push(Reverse((at + UPKEEP_MS, Event::Upkeep)));
            }
            Event::Flood => {
                if let Some(flood) = scenario.flood {
                    for _ in 0..flood.per_second / FLOOD_STEPS {
                        balancer.packet(bots.next(), true, now);
                        out.flood_packets += 1;
                    }
                    let next = at + 1_000 / FLOOD_STEPS;
                    if next < flood.until * 1_000 {
                        queue.push(Reverse((next, Event::Flood)));
                    }
                }
            }
            Event::Client(index) => {
                let client = &mut clients[index];
                client.send(balancer, world, now, scenario, &mut out);
                let pause = client.pause(scenario.window);
                queue.push(Reverse((at + pause, Event::Client(index))));
            }
        }
    }
    out
}
