//! Slots of services with `just-enough` tracking, in the daemon: the effect of a new ring on each slot, when a slot
//! leaves its phase, and which records are no longer needed. [`lb_common::ring_slot`] has the rules.
//!
//! The kernel's ring has the phase of a slot; [`Ages`] has its begin. A change is [`rebuild`], write,
//! [`Ages::written`]; from time to time a [`Sweep`] walks the flow tables and ends phases.
//!
//! The writer of the maps must keep one order: a backend that dies leaves the rings before its record changes, and it
//! recovers with the next generation. While it was dead its flows went elsewhere, and old records must not pull them
//! back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_common::{
    backend::BackendId,
    flow::IdleTimeouts,
    hash::HashBy,
    ring_slot::{Phase, RingSlot},
    track::{FlowRecord, TICK_SECS, Tick},
};

use crate::state::service::Protocol;

/// Longest transition of a UDP service's slots. Its new flows cannot be distinguished from old ones and go to the old
/// owner until the window ends, so a long window would keep a draining backend busy.
pub const UDP_WINDOW_MAX: Duration = Duration::from_secs(30);

/// A record is kept for this many windows after its flow's last packet. One would do for the promise; the rest lets
/// flows that are idle for longer keep their backend at the price of memory alone.
pub const RECORD_WINDOWS: u32 = 3;

/// Time after a ring's swap in which a packet may still use the old one. A run of the program takes microseconds;
/// results of a sweep from before this time do not count for the new ring.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How long a slot stays in transition, for the `transition` that the operator set.
pub fn window(protocol: Protocol, transition: Duration) -> Duration {
    match protocol {
        Protocol::Tcp => transition,
        Protocol::Udp => transition.min(UDP_WINDOW_MAX),
    }
}

/// A ring for a service that has none yet: there are no flows, so every slot is stable.
pub fn fresh(owners: &[BackendId]) -> Vec<RingSlot> {
    owners.iter().copied().map(RingSlot::stable).collect()
}

/// The ring after `old` when its slots get new owners (none if no backend takes new flows). `lives` tests whether
/// recorded flows may still go to a backend. The result depends on the arguments alone, and a rebuild from the result
/// changes nothing. If the rings differ in size, a slot inherits from the old slot that most of its hashes came from:
/// slots stand for ranges of hashes in their order. Flows of other old slots move, unless they are recorded.
pub fn rebuild(old: &[RingSlot], owners: &[BackendId], lives: impl Fn(BackendId) -> bool) -> Vec<RingSlot> {
    let next = |(index, owner): (usize, &BackendId)| {
        let middle = (2 * index + 1) * old.len() / (2 * owners.len());
        let slot = old.get(middle).copied().unwrap_or_default();
        slot.next(*owner, lives(slot.current), lives(slot.previous))
    };
    owners.iter().enumerate().map(next).collect()
}

/// Since when the slots of one ring are in their phase, on the clock of the flow records (CLOCK_MONOTONIC). Stable
/// slots have no age.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    since: BTreeMap<u32, Duration>,
}

impl Ages {
    /// The ages of a ring that an earlier daemon left in the kernel: every phase begins now. A transition that lasts
    /// longer than its window is still correct: flows that began after the change are recorded since their first
    /// packet, so an unknown flow is older and still belongs to `previous`. The price is look-ups.
    pub fn restarted(slots: &[RingSlot], now: Duration) -> Self {
        let mut ages = Self::default();
        for (index, slot) in (0..).zip(slots) {
            ages.begin(index, *slot, now);
        }
        ages
    }

    /// Records that the ring was swapped, `now`: each changed slot begins a new phase.
    pub fn written(&mut self, old: &[RingSlot], new: &[RingSlot], now: Duration) {
        for ((index, old), new) in (0..).zip(old).zip(new) {
            if old != new {
                self.begin(index, *new, now);
            }
        }
    }

    fn begin(&mut self, index: u32, slot: RingSlot, now: Duration) {
        match slot.phase() {
            Phase::Stable => self.since.remove(&index),
            Phase::Transition | Phase::Pinned => self.since.insert(index, now),
        };
    }

    /// Whether every slot is stable, so that no sweep is needed.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}

/// The fate of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It can be deleted.
    Delete,
}

/// Why and how long to keep a service's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How long a slot stays in transition, as [`window`] gives it.
    pub window: Duration,
    /// How long a record is kept after its flow's last packet.
    pub keep: Duration,
    /// How long a flow that was only opened counts as one under way.
    pub half_open: Duration,
    /// Whether every flow is recorded, not only flows in changing slots.
    pub all: bool,
    /// The part of a tuple that selects the slot.
    pub hash_by: HashBy,
}

impl Rules {
    /// The rules of a service: which flows it records, what selects its slots, the operator's `transition`, and the
    /// times after which idle flows are forgotten.
    pub fn new(
        protocol: Protocol,
        transition: Duration,
        idle: IdleTimeouts,
        all: bool,
        hash_by: HashBy,
    ) -> Self {
        let window = window(protocol, transition);
        let established = if all { u64::from(idle.established) } else { 0 };
        Self {
            window,
            keep: (window * RECORD_WINDOWS).max(Duration::from_secs(established)),
            half_open: Duration::from_secs(idle.half_open.into()),
            all,
            hash_by,
        }
    }
}

/// One walk through the flow tables on behalf of one ring.
///
/// Walk the tables in [`lb_common::track::Table::SWEEP_ORDER`] and each as a whole: a flow that is there all the time
/// must be met. Packets, and changes of the ring, may come meanwhile.
#[derive(Debug)]
pub struct Sweep<'a> {
    slots: &'a [RingSlot],
    rules: Rules,
    walked: Walked,
}

/// The results of a walk for a ring's slots.
#[derive(Clone, Debug)]
pub struct Walked {
    began: Duration,
    foreign: BTreeSet<u32>,
}

impl<'a> Sweep<'a> {
    /// Begins a walk, `now`, through flows of a service with this ring.
    pub fn begin(slots: &'a [RingSlot], rules: Rules, now: Duration) -> Self {
        Self {
            slots,
            rules,
            walked: Walked {
                began: now,
                foreign: BTreeSet::new(),
            },
        }
    }

    /// Takes a recorded flow, by the slot that its hash selects, and returns the fate of its record. `lives`: the
    /// backend is alive, and of the record's generation.
    pub fn flow(&mut self, slot: u32, flow: FlowRecord, lives: bool, now: Tick) -> Fate {
        let Some(ring_slot) = self.slots.get(slot as usize) else {
            return Fate::Keep;
        };
        let own = flow.backend == ring_slot.current;
        // A record may be as young as the end of the tick that it was written in.
        let idle = u64::from(flow.last_seen.secs_until(now).saturating_sub(TICK_SECS));
        // A record that is in use means that the slot has changed since the walk began, and may need it now.
        let unused = flow
            .last_seen
            .secs_until(Tick::from_secs(self.walked.began.as_secs()))
            > TICK_SECS;
        match ring_slot.phase() {
            _ if !lives || idle > self.rules.keep.as_secs() => Fate::Delete,
            // Their slot selects the same backend.
            Phase::Stable | Phase::Pinned if own && unused && !self.rules.all => Fate::Delete,
            Phase::Pinned if !own => {
                self.walked.foreign.insert(slot);
                Fate::Keep
            }
            Phase::Stable | Phase::Transition | Phase::Pinned => Fate::Keep,
        }
    }

    /// Ends the walk.
    pub fn end(self) -> Walked {
        self.walked
    }
}

impl Walked {
    /// After the walk, `now`: the ring after `slots`, which is the kernel's present one and may have changed during the
    /// walk. The same ring if no slot leaves its phase. A slot whose window is over is pinned. A slot that was pinned,
    /// for at least [`SETTLE`], before the walk began becomes stable if the walk met no flow of another backend.
    pub fn finish(&self, slots: &[RingSlot], ages: &Ages, window: Duration, now: Duration) -> Vec<RingSlot> {
        let mut next = slots.to_vec();
        for (index, since) in &ages.since {
            let Some(slot) = next.get_mut(*index as usize) else {
                continue;
            };
            let over = now.saturating_sub(*since) > window;
            let walked = *since + SETTLE < self.began;
            match slot.phase() {
                Phase::Transition if over => *slot = RingSlot::pinned(slot.current),
                Phase::Pinned if walked && !self.foreign.contains(index) => {
                    *slot = RingSlot::stable(slot.current);
                }
                Phase::Stable | Phase::Transition | Phase::Pinned => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use lb_common::backend::Generation;

    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const WINDOW: Duration = Duration::from_secs(100);
    const RULES: Rules = Rules {
        window: WINDOW,
        keep: Duration::from_secs(300),
        half_open: Duration::from_secs(60),
        all: false,
        hash_by: HashBy::Tuple,
    };

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const fn changed(current: BackendId, previous: BackendId) -> RingSlot {
        RingSlot { current, previous }
    }

    fn record(backend: BackendId, last_seen: u64) -> FlowRecord {
        FlowRecord {
            backend,
            generation: Generation(1),
            last_seen: Tick::from_secs(last_seen),
            check: 0,
        }
    }

    /// A ring of one slot, swapped in at second 1,000.
    fn written(old: RingSlot, new: RingSlot) -> ([RingSlot; 1], Ages) {
        let mut ages = Ages::default();
        ages.written(&[old], &[new], at(1_000));
        ([new], ages)
    }

    #[test]
    fn slot_inherits_from_the_slot_of_most_of_its_hashes() {
        let ring = fresh(&[A, B]);
        let pinned = RingSlot::pinned(A);
        for (old, owners, becomes) in [
            (&ring[..], &[B, B][..], &[changed(B, A), RingSlot::stable(B)][..]),
            (
                &ring,
                &[B, A, B, A],
                &[
                    changed(B, A),
                    RingSlot::stable(A),
                    RingSlot::stable(B),
                    changed(A, B),
                ],
            ),
            (
                &ring,
                &[A, A, A],
                &[RingSlot::stable(A), changed(A, B), changed(A, B)],
            ),
            (
                &[pinned, ring[0], ring[1], ring[1]],
                &[A, A],
                &[ring[0], changed(A, B)],
            ),
            (&ring, &[BackendId::NONE; 1], &[changed(BackendId::NONE, B)]),
        ] {
            let next = rebuild(old, owners, |_| true);
            assert_eq!(next, becomes);
            assert_eq!(rebuild(&next, owners, |_| true), becomes, "again");
        }
        assert_eq!(rebuild(&ring, &[B, B], |id| id != A), [RingSlot::stable(B); 2]);
    }

    #[test]
    fn a_transition_ends_after_its_window_and_not_before() {
        for (now, becomes) in [(1_100, changed(B, A)), (1_101, RingSlot::pinned(B))] {
            let (slots, ages) = written(RingSlot::stable(A), changed(B, A));
            let sweep = Sweep::begin(&slots, RULES, at(now));
            assert_eq!(
                sweep.end().finish(&slots, &ages, WINDOW, at(now)),
                [becomes],
                "{now}"
            );
        }
    }

    #[test]
    fn further_change_restarts_the_window() {
        let (_, mut ages) = written(RingSlot::stable(A), changed(B, A));
        let slots = [changed(BackendId(3), A)];
        ages.written(&[changed(B, A)], &slots, at(1_090));
        let sweep = Sweep::begin(&slots, RULES, at(1_150));
        assert_eq!(sweep.end().finish(&slots, &ages, WINDOW, at(1_150)), slots);
    }

    #[test]
    fn restart_restarts_every_window() {
        let slots = [RingSlot::stable(A), changed(B, A), RingSlot::pinned(B)];
        let ages = Ages::restarted(&slots, at(5_000));
        let sweep = Sweep::begin(&slots, RULES, at(5_100));
        let next = sweep.end().finish(&slots, &ages, WINDOW, at(5_100));
        assert_eq!(next, [slots[0], slots[1], RingSlot::stable(B)]);
    }

    #[test]
    fn a_pinned_slot_waits_for_its_last_foreign_flow() {
        // When the walk began, the flow that it met, and the new slot.
        for (began, met, becomes) in [
            (1_010, None, RingSlot::stable(B)),
            (1_010, Some(record(B, 1_009)), RingSlot::stable(B)),
            (1_010, Some(record(A, 1_009)), RingSlot::pinned(B)),
            (1_001, None, RingSlot::pinned(B)),
            (990, None, RingSlot::pinned(B)),
        ] {
            let (slots, ages) = written(changed(B, A), RingSlot::pinned(B));
            let mut sweep = Sweep::begin(&slots, RULES, at(began));
            if let Some(flow) = met {
                assert_eq!(sweep.flow(0, flow, true, Tick::from_secs(1_012)), Fate::Keep);
            }
            let next = sweep.end().finish(&slots, &ages, WINDOW, at(1_020));
            assert_eq!(next, [becomes], "walk from {began}, {met:?}");
        }
    }

    #[test]
    fn a_slot_that_changes_during_the_walk_is_left_alone() {
        let before = [RingSlot::pinned(B)];
        let (now, ages) = written(before[0], changed(A, B));
        let sweep = Sweep::begin(&before, RULES, at(999));
        assert_eq!(sweep.end().finish(&now, &ages, WINDOW, at(1_001)), now);
    }

    #[test]
    fn only_redundant_records_are_deleted() {
        let idle_max = WINDOW.as_secs() * u64::from(RECORD_WINDOWS);
        let began = 10_000;
        for (slot, flow, lives, fate) in [
            (RingSlot::stable(A), record(A, began - 20), true, Fate::Delete),
            (RingSlot::stable(A), record(A, began - 20), false, Fate::Delete),
            // In use, so the slot is stable no more.
            (RingSlot::stable(A), record(A, began + 1), true, Fate::Keep),
            (RingSlot::stable(A), record(B, began - 20), true, Fate::Keep),
            (RingSlot::pinned(A), record(A, began - 20), true, Fate::Delete),
            (RingSlot::pinned(A), record(B, began - 20), true, Fate::Keep),
            (changed(B, A), record(A, began - 20), true, Fate::Keep),
            (changed(B, A), record(B, began - 20), true, Fate::Keep),
            (changed(B, A), record(B, began - 20), false, Fate::Delete),
            (changed(B, A), record(B, began - idle_max), true, Fate::Keep),
            (
                changed(B, A),
                record(B, began - idle_max - 12),
                true,
                Fate::Delete,
            ),
        ] {
            let slots = [slot];
            let mut sweep = Sweep::begin(&slots, RULES, at(began));
            let now = Tick::from_secs(began + 2);
            assert_eq!(sweep.flow(0, flow, lives, now), fate, "{slot:?} {flow:?} {lives}");
        }
    }

    #[test]
    fn udp_slots_do_not_stay_in_transition_for_long() {
        assert_eq!(window(Protocol::Tcp, at(600)), at(600));
        assert_eq!(window(Protocol::Udp, at(600)), UDP_WINDOW_MAX);
        assert_eq!(window(Protocol::Udp, at(5)), at(5));
    }
}
