#![allow(clippy::disallowed_methods, reason = "tests begin at some time")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Starts everything as it becomes due, never waiting for results, and returns when each started.
fn start_times(scheduler: &mut Scheduler<u32>, from: Instant) -> Vec<(u32, Duration)> {
    let mut starts = Vec::new();
    while let Some(at) = scheduler.next_deadline() {
        while let Some(due) = scheduler.start_due(at) {
            starts.push((due.key, due.due - from));
        }
    }
    starts
}

#[test]
fn a_start_makes_no_burst() {
    let now = Instant::now();
    let checks: Vec<(u32, Duration)> = (0..1000).map(|key| (key, 1000 * MS)).collect();
    let mut scheduler = Scheduler::new(usize::MAX, 7);
    scheduler.spread(&checks, now);
    let starts = start_times(&mut scheduler, now);
    assert_eq!(starts.len(), 1000);
    for (place, (key, at)) in (0_u32..).zip(&starts) {
        // One in each millisecond, in order.
        assert_eq!(*key, place);
        assert!((MS * place..=MS * (place + 1)).contains(at), "{key} at {at:?}");
    }
}

#[test]
fn balancers_do_not_check_in_step() {
    let now = Instant::now();
    let checks: Vec<(u32, Duration)> = (0..100).map(|key| (key, 1000 * MS)).collect();
    let starts = |seed| {
        let mut scheduler = Scheduler::new(usize::MAX, seed);
        scheduler.spread(&checks, now);
        start_times(&mut scheduler, now)
    };
    assert_eq!(starts(1), starts(1));
    assert_ne!(starts(1), starts(2));
}

#[test]
fn jitter_stays_in_its_window_and_fills_it() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(1, 3);
    scheduler.spread(&[(1, Duration::ZERO)], now);
    let mut earliest = Duration::MAX;
    let mut latest = Duration::ZERO;
    let mut at = now;
    for _ in 0..1000 {
        assert!(scheduler.start_due(at).is_some());
        scheduler.finish(1, at, at + 1000 * MS, 100 * MS);
        let next = scheduler.next_deadline().unwrap();
        earliest = earliest.min(next - at);
        latest = latest.max(next - at);
        at = next;
    }
    assert!((900 * MS..905 * MS).contains(&earliest), "{earliest:?}");
    assert!((1095 * MS..=1100 * MS).contains(&latest), "{latest:?}");
}

#[test]
fn a_check_that_outlived_its_interval_is_due_at_its_end_not_before() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(1, 3);
    scheduler.spread(&[(1, Duration::ZERO)], now);
    assert!(scheduler.start_due(now).is_some());
    scheduler.finish(1, now + 1000 * MS, now + 500 * MS, Duration::ZERO);
    // Else its own slowness would be counted as lag of the scheduler.
    assert_eq!(scheduler.next_deadline(), Some(now + 1000 * MS));
}

#[test]
fn a_removed_check_gives_its_place_free_and_never_returns() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(1, 3);
    scheduler.spread(
        &[(1, Duration::ZERO), (2, Duration::ZERO), (3, Duration::ZERO)],
        now,
    );
    let first = scheduler.start_due(now).unwrap().key;
    assert_eq!(scheduler.start_due(now), None);
    scheduler.remove(first);
    scheduler.remove(3);
    assert_eq!(scheduler.in_flight(), 0);
    scheduler.finish(first, now, now, Duration::ZERO);
    assert_eq!(scheduler.start_due(now).map(|due| due.key), Some(2));
    scheduler.remove(2);
    assert_eq!(scheduler.next_deadline(), None);
}

#[derive(Clone, Debug)]
enum Move {
    Start,
    Finish { which: usize, next: u64 },
    Remove { key: u32 },
    Spread { key: u32 },
    Wait { ms: u64 },
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => Just(Move::Start),
        4 => (any::<usize>(), 0_u64..50).prop_map(|(which, next)| Move::Finish { which, next }),
        1 => (0_u32..12).prop_map(|key| Move::Remove { key }),
        2 => (0_u32..12).prop_map(|key| Move::Spread { key }),
        2 => (0_u64..30).prop_map(|ms| Move::Wait { ms }),
    ]
}

proptest! {
    /// Against a plain model: never more than the bound at once, never a check twice at a time, never one before its
    /// time, always the longest due first, and never idle while something is due and a place is free.
    #[test]
    fn schedule_equals_its_model(bound in 1_usize..4, moves in prop::collection::vec(any_move(), 0..300)) {
        let mut now = Instant::now();
        let mut scheduler = Scheduler::new(bound, 1);
        let mut waiting: BTreeMap<u32, Instant> = BTreeMap::new();
        let mut in_flight: BTreeSet<u32> = BTreeSet::new();
        for step in moves {
            match step {
                Move::Start => {
                    let longest = waiting.iter().map(|(key, at)| (*at, *key)).min();
                    let expected = longest.filter(|(at, _)| *at <= now && in_flight.len() < bound);
                    let started = scheduler.start_due(now).map(|due| (due.due, due.key));
                    prop_assert_eq!(started, expected);
                    if let Some((_, key)) = started {
                        waiting.remove(&key);
                        prop_assert!(in_flight.insert(key));
                    }
                }
                Move::Finish { which, next } => {
                    if in_flight.is_empty() {
                        continue;
                    }
                    let key = *in_flight.iter().nth(which % in_flight.len()).unwrap();
                    in_flight.remove(&key);
                    let next = now + MS * u32::try_from(next).unwrap();
                    scheduler.finish(key, now, next, Duration::ZERO);
                    waiting.insert(key, next);
                }
                Move::Remove { key } => {
                    scheduler.remove(key);
                    waiting.remove(&key);
                    in_flight.remove(&key);
                }
                Move::Spread { key } => {
                    scheduler.spread(&[(key, Duration::ZERO)], now);
                    if !in_flight.contains(&key) {
                        waiting.insert(key, now);
                    }
                }
                Move::Wait { ms } => now += MS * u32::try_from(ms).unwrap(),
            }
            prop_assert_eq!(scheduler.in_flight(), in_flight.len());
            let next = waiting.values().min().copied().filter(|_| in_flight.len() < bound);
            prop_assert_eq!(scheduler.next_deadline(), next);
        }
    }

    /// With far too few places, slow checks cannot keep others from their turn.
    #[test]
    fn every_check_gets_a_turn_when_places_are_short(checks in 2_u32..40, bound in 1_usize..4, seed in any::<u64>()) {
        let mut now = Instant::now();
        let mut scheduler = Scheduler::new(bound, seed);
        let all: Vec<(u32, Duration)> = (0..checks).map(|key| (key, 10 * MS)).collect();
        scheduler.spread(&all, now);
        let mut turns = vec![0_u32; usize::try_from(checks).unwrap()];
        let mut running: Vec<u32> = Vec::new();
        now += 10 * MS;
        for _ in 0..checks * 10 {
            while let Some(due) = scheduler.start_due(now) {
                turns[usize::try_from(due.key).unwrap()] += 1;
                running.push(due.key);
            }
            now += 100 * MS;
            let done = running.remove(0);
            scheduler.finish(done, now, now + 10 * MS, 5 * MS);
        }
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        prop_assert!(most - least <= 2, "{:?}", turns);
    }
}
