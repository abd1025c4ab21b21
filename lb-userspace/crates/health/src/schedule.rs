//! Which check starts when. Pure: time is handed in, randomness comes from a seed.

#![warn(clippy::disallowed_methods)]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use super::random::Random;

/// A check that may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due<K> {
    /// Which.
    pub key: K,
    /// When it should have started; how long ago that is, is the lag.
    pub due: Instant,
}

/// The scheduler's state of a check. The deadline distinguishes a valid heap entry from an outdated one.
#[derive(Clone, Copy, Debug)]
enum State {
    Waiting(Instant),
    InFlight,
}

/// Starts checks at their time, the longest due first, at most `max_in_flight` at once and never one check twice.
///
/// A check that is due while all places are taken waits; since the longest due goes first, each gets its turn.
#[derive(Debug)]
pub struct Scheduler<K> {
    checks: BTreeMap<K, State>,
    deadlines: BinaryHeap<Reverse<(Instant, K)>>,
    in_flight: usize,
    max_in_flight: usize,
    random: Random,
}

impl<K: Copy + Ord> Scheduler<K> {
    /// A scheduler without checks. Schedules of the same `seed` and calls are the same; balancers with different
    /// seeds do not check in step.
    pub fn new(max_in_flight: usize, seed: u64) -> Self {
        Self {
            checks: BTreeMap::new(),
            deadlines: BinaryHeap::new(),
            in_flight: 0,
            max_in_flight: max_in_flight.max(1),
            random: Random::new(seed),
        }
    }

    /// Adds checks, each with the window within which its first start may be, and spreads them evenly: the n-th of
    /// them starts in the n-th part of its window. A waiting key is rescheduled; one in flight is left alone.
    pub fn spread(&mut self, checks: &[(K, Duration)], now: Instant) {
        let count = u32::try_from(checks.len()).unwrap_or(u32::MAX);
        for (place, &(key, window)) in (0..count).zip(checks) {
            if matches!(self.checks.get(&key), Some(State::InFlight)) {
                continue;
            }
            let part = window / count;
            let at = now + part.saturating_mul(place) + self.random.up_to(part);
            self.wait(key, at);
        }
    }

    /// Adds a check that is due at `at`. A waiting key is rescheduled; one in flight is left alone.
    pub fn begin(&mut self, key: K, at: Instant) {
        if !matches!(self.checks.get(&key), Some(State::InFlight)) {
            self.wait(key, at);
        }
    }

    /// Has a check start at `at` if it waits for a later time.
    pub fn hasten(&mut self, key: K, at: Instant) {
        if matches!(self.checks.get(&key), Some(State::Waiting(due)) if *due > at) {
            self.wait(key, at);
        }
    }

    /// Removes a check; one in flight gives its place free.
    pub fn remove(&mut self, key: K) {
        if let Some(State::InFlight) = self.checks.remove(&key) {
            self.in_flight -= 1;
        }
    }

    /// When the next check can start; `None` while there is none, or no free place.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        self.drop_left_overs();
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the check that is due longest, if one is due at `now` and a place is free. It is in flight from now on.
    pub fn start_due(&mut self, now: Instant) -> Option<Due<K>> {
        let due = self.next_deadline().filter(|at| *at <= now)?;
        let Reverse((_, key)) = self.deadlines.pop()?;
        self.checks.insert(key, State::InFlight);
        self.in_flight += 1;
        Some(Due { key, due })
    }

    /// A check in flight ended at `now`: its next one is due at `next`, moved at random by up to `window` either way,
    /// but not in the past. A check removed meanwhile is not scheduled again.
    pub fn finish(&mut self, key: K, now: Instant, next: Instant, window: Duration) {
        if matches!(self.checks.get(&key), Some(State::InFlight)) {
            self.in_flight -= 1;
            let at = next + self.random.up_to(window.saturating_mul(2)) - window;
            self.wait(key, at.max(now));
        }
    }

    /// Checks in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn wait(&mut self, key: K, at: Instant) {
        self.checks.insert(key, State::Waiting(at));
        self.deadlines.push(Reverse((at, key)));
    }

    /// Removing and rescheduling leave entries in the heap that are not in force any more.
    fn drop_left_overs(&mut self) {
        while let Some(Reverse((at, key))) = self.deadlines.peek() {
            match self.checks.get(key) {
                Some(State::Waiting(in_force)) if in_force == at => return,
                Some(State::Waiting(_) | State::InFlight) | None => {
                    self.deadlines.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
