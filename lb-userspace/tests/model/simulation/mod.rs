//! A simulation of clients, backends and a balancer between them. The balancer under test is made of the very code that
//! the XDP program and the daemon run; only maps, clock and network are simulated.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "the benchmark runs this outside of tests, and its numbers are small"
)]

pub(crate) mod just_enough;
pub(crate) mod katran;
mod lru;
pub(crate) mod random;
pub(crate) mod run;
pub(crate) mod world;

use std::time::Duration;

use lb_common::backend::BackendId;

use self::world::World;

/// A tuple, in short: 64 well-mixed bits.
pub(crate) type FlowKey = u64;

/// Records that a scheme may hold at most, over all its tables. Both schemes get the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// Proven flows.
    pub(crate) tracked: usize,
    /// Flows that have only opened.
    pub(crate) opening: usize,
    /// Older flows seen once.
    pub(crate) seen: usize,
}

impl Memory {
    /// All records together.
    pub(crate) const fn total(self) -> usize {
        self.tracked + self.opening + self.seen
    }
}

/// Costs of a scheme.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Costs {
    /// Packets with a flow table look-up.
    pub(crate) look_ups: u64,
    /// Most records at any time.
    pub(crate) records: usize,
}

/// A scheme of picking backends.
pub(crate) trait Balancer {
    /// Backends or their weights have changed.
    fn changed(&mut self, world: &World, now: Duration);
    /// The daemon restarts; the kernel's state stays.
    fn restarted(&mut self, now: Duration);
    /// Picks the backend of a packet; `opens`: it is a TCP SYN.
    fn packet(&mut self, flow: FlowKey, opens: bool, now: Duration) -> BackendId;
    /// Called every few seconds.
    fn upkeep(&mut self, world: &World, now: Duration);
    /// Its costs so far.
    fn costs(&self) -> Costs;
}

/// The hash of a flow, as the ring sees it.
pub(crate) fn hash(flow: FlowKey) -> u32 {
    (random::mix(flow) >> 32) as u32
}
