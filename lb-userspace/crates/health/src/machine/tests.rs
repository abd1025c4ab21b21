#![allow(clippy::disallowed_methods, reason = "tests begin at some time")]

use proptest::prelude::*;

use super::*;
use crate::{random::Random, schedule::Scheduler};

fn settings() -> CheckSettings {
    CheckSettings {
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_millis(500),
        down_interval_max: Duration::from_secs(10),
        rise: 2,
        fall: 3,
        jitter: 0.25,
        ..CheckSettings::default()
    }
}

/// Feeds `script` (s success, f failure, l local) and returns, per result, the verdict (U, D, ?) and the time to the
/// next check in milliseconds.
fn play(policy: Policy, initial: Health, script: &str) -> Vec<(char, u128)> {
    let mut machine = Machine::new(policy, initial);
    let mut now = Instant::now();
    let mut before = initial;
    let play_one = |letter| {
        let outcome = match letter {
            's' => Outcome::Success,
            'f' => Outcome::Failure,
            'l' => Outcome::Local,
            other => panic!("no outcome {other}"),
        };
        let decision = machine.on_result(now, outcome);
        let verdict = machine.health();
        // A transition is reported exactly when the health state changes.
        assert_eq!(
            decision.transition,
            (verdict != before).then_some(verdict),
            "in {script}"
        );
        before = verdict;
        let wait = decision.next - now;
        now = decision.next;
        let letter = match verdict {
            Health::Up => 'U',
            Health::Down => 'D',
            Health::Unchecked => '?',
        };
        (letter, wait.as_millis())
    };
    script.chars().map(play_one).collect()
}

/// The name, the health state before, the results, and after each result the health state and the time to the next
/// check.
type Case = (&'static str, Health, &'static str, &'static [(char, u128)]);

#[test]
fn every_transition() {
    use Health::{Down, Unchecked, Up};
    let cases: [Case; 13] = [
        ("the first result decides, up", Unchecked, "s", &[('U', 1000)]),
        ("the first result decides, down", Unchecked, "f", &[('D', 1000)]),
        (
            "a local error decides nothing",
            Unchecked,
            "lls",
            &[('?', 500), ('?', 500), ('U', 1000)],
        ),
        ("success while up", Up, "ss", &[('U', 2000), ('U', 2000)]),
        (
            "one failure too few",
            Up,
            "ffs",
            &[('U', 500), ('U', 500), ('U', 2000)],
        ),
        ("fall failures", Up, "fff", &[('U', 500), ('U', 500), ('D', 2000)]),
        (
            "a success between failures resets the count",
            Up,
            "ffsff",
            &[('U', 500), ('U', 500), ('U', 2000), ('U', 500), ('U', 500)],
        ),
        (
            "local errors while up",
            Up,
            "lll",
            &[('U', 2000), ('U', 2000), ('U', 2000)],
        ),
        (
            "a local error neither counts nor resets the count",
            Up,
            "flfllf",
            &[
                ('U', 500),
                ('U', 500),
                ('U', 500),
                ('U', 500),
                ('U', 500),
                ('D', 2000),
            ],
        ),
        ("rise successes", Down, "ss", &[('D', 500), ('U', 2000)]),
        (
            "one success too few",
            Down,
            "sfs",
            &[('D', 500), ('D', 2000), ('D', 500)],
        ),
        (
            "a local error while rising",
            Down,
            "sls",
            &[('D', 500), ('D', 500), ('U', 2000)],
        ),
        (
            "a short outage is no reason for a longer wait",
            Up,
            "ffffff",
            &[
                ('U', 500),
                ('U', 500),
                ('D', 2000),
                ('D', 2000),
                ('D', 2000),
                ('D', 2000),
            ],
        ),
    ];
    for (name, initial, script, expected) in cases {
        assert_eq!(
            play(Policy::new(&settings()), initial, script),
            expected,
            "{name}"
        );
    }
}

/// Between two checks passes a tenth of the outage, at most `down_interval_max`; an answer of this machine's own and a single success
/// change nothing of that, and the next outage begins anew.
#[test]
fn back_off_follows_the_outage() {
    let policy = Policy::new(&settings());
    let mut machine = Machine::new(policy, Health::Down);
    let began = Instant::now();
    let mut at = |seconds: u64, outcome| {
        let now = began + Duration::from_secs(seconds);
        (machine.on_result(now, outcome).next - now).as_millis()
    };
    for (seconds, outcome, expected) in [
        (0, Outcome::Failure, 2_000),
        (20, Outcome::Failure, 2_000),
        (30, Outcome::Failure, 3_000),
        (40, Outcome::Local, 4_000),
        (50, Outcome::Success, 500),
        (60, Outcome::Failure, 6_000),
        (100, Outcome::Failure, 10_000),
        (1_000, Outcome::Failure, 10_000),
        (1_010, Outcome::Success, 500),
        (1_011, Outcome::Success, 2_000),
        (1_020, Outcome::Failure, 500),
        (1_021, Outcome::Failure, 500),
        (1_022, Outcome::Failure, 2_000),
        (1_047, Outcome::Failure, 2_500),
    ] {
        assert_eq!(at(seconds, outcome), expected, "at {seconds} s");
    }
}

/// Damped after two falls within 20 s, held for 3 s: the name, the results, and after each the health state, whether it
/// is damped, and the time to the next check.
type Damped = (&'static str, &'static str, &'static [(char, bool, u128)]);

#[test]
fn every_transition_of_damping() {
    let cases: [Damped; 5] = [
        (
            "one fall is none too many",
            "fss",
            &[('D', false, 2000), ('D', false, 500), ('U', false, 2000)],
        ),
        (
            "the second holds it down, with rise and beyond",
            "fssfsssss",
            &[
                ('D', false, 2000),
                ('D', false, 500),
                ('U', false, 2000),
                ('D', true, 2000),
                ('D', true, 500),
                ('D', true, 2000),
                // 2.5 s of successes: 0.5 s are left.
                ('D', true, 500),
                ('U', false, 2000),
                ('U', false, 2000),
            ],
        ),
        (
            "a failure restarts the time, a local error does not",
            "fssfssfslss",
            &[
                ('D', false, 2000),
                ('D', false, 500),
                ('U', false, 2000),
                ('D', true, 2000),
                ('D', true, 500),
                ('D', true, 2000),
                ('D', true, 2000),
                ('D', true, 500),
                ('D', true, 500),
                ('D', true, 2000),
                ('U', false, 2000),
            ],
        ),
        (
            "falls stay remembered when it is up again",
            "fssfssssf",
            &[
                ('D', false, 2000),
                ('D', false, 500),
                ('U', false, 2000),
                ('D', true, 2000),
                ('D', true, 500),
                ('D', true, 2000),
                ('D', true, 500),
                ('U', false, 2000),
                ('D', true, 2000),
            ],
        ),
        (
            "falls long ago do not count",
            "fsssssssssssf",
            &[
                ('D', false, 2000),
                ('D', false, 500),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('U', false, 2000),
                ('D', false, 2000),
            ],
        ),
    ];
    let policy = Policy::new(&CheckSettings {
        fall: 1,
        damping: Damping {
            limit: 2,
            window: Duration::from_secs(20),
            hold: Duration::from_secs(3),
        },
        ..settings()
    });
    for (name, script, expected) in cases {
        let mut machine = Machine::new(policy, Health::Up);
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for letter in script.chars() {
            let outcome = match letter {
                's' => Outcome::Success,
                'f' => Outcome::Failure,
                _ => Outcome::Local,
            };
            let next = machine.on_result(now, outcome).next;
            let verdict = if machine.health() == Health::Up { 'U' } else { 'D' };
            seen.push((verdict, machine.is_damped(), (next - now).as_millis()));
            now = next;
        }
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn jitter_moves_settled_checks_only() {
    let now = Instant::now();
    let window = |initial, outcome| {
        Machine::new(Policy::new(&settings()), initial)
            .on_result(now, outcome)
            .window
    };
    assert_eq!(window(Health::Up, Outcome::Success), Duration::from_millis(500));
    assert_eq!(window(Health::Down, Outcome::Failure), Duration::from_millis(500));
    // The promised detection time counts on the fast interval.
    assert_eq!(window(Health::Up, Outcome::Failure), Duration::ZERO);
    assert_eq!(window(Health::Down, Outcome::Success), Duration::ZERO);
    // Checks that began together at a cold start spread over the whole interval.
    assert_eq!(
        window(Health::Unchecked, Outcome::Success),
        Duration::from_secs(1)
    );
}

#[test]
fn settings_without_sense_make_no_busy_loop() {
    let policy = Policy::new(&CheckSettings {
        interval: Duration::ZERO,
        fast_interval: Duration::MAX,
        down_interval_max: Duration::ZERO,
        rise: 0,
        fall: 0,
        jitter: f64::NAN,
        ..CheckSettings::default()
    });
    assert_eq!(play(policy, Health::Up, "sfs"), [('U', 1), ('D', 1), ('U', 1)]);
    let policy = Policy::new(&CheckSettings {
        interval: Duration::MAX,
        ..CheckSettings::default()
    });
    assert_eq!(play(policy, Health::Up, "s"), [('U', MAX_INTERVAL.as_millis())]);
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![3 => Just(Outcome::Success), 3 => Just(Outcome::Failure), 1 => Just(Outcome::Local)]
}

proptest! {
    /// Up exactly after `rise` successes in a row, down exactly after `fall` failures in a row, whatever came before
    /// and with any local errors in between.
    #[test]
    fn verdict_follows_the_last_results_only(
        rise in 1_usize..6,
        fall in 1_usize..6,
        restored in prop_oneof![Just(Health::Up), Just(Health::Down)],
        outcomes in prop::collection::vec(outcome(), 0..200),
    ) {
        let (rise_u32, fall_u32) = (u32::try_from(rise).unwrap(), u32::try_from(fall).unwrap());
        let policy = Policy::new(&CheckSettings { rise: rise_u32, fall: fall_u32, ..settings() });
        let mut machine = Machine::new(policy, restored);
        let now = Instant::now();
        let mut counted: Vec<Outcome> = Vec::new();
        for outcome in outcomes {
            let before = machine.health();
            let _ = machine.on_result(now, outcome);
            if outcome != Outcome::Local {
                counted.push(outcome);
            }
            let in_a_row = |wanted| counted.iter().rev().take_while(|seen| **seen == wanted).count();
            let expected = match before {
                Health::Up if in_a_row(Outcome::Failure) >= fall => Health::Down,
                Health::Down if in_a_row(Outcome::Success) >= rise => Health::Up,
                same @ (Health::Up | Health::Down | Health::Unchecked) => same,
            };
            prop_assert_eq!(machine.health(), expected);
        }
    }

    /// With damping, still never up without `rise` successes in a row and never down without `fall` failures in a row;
    /// and a target that fell too often is up exactly when its successes have lasted for `hold` as well.
    #[test]
    fn damping_only_delays_what_rise_allows(
        rise in 1_usize..4,
        fall in 1_usize..4,
        limit in 1_usize..5,
        window_ms in 1_u64..60_000,
        hold_ms in 1_u64..20_000,
        outcomes in prop::collection::vec(outcome(), 0..300),
    ) {
        let (window, hold) = (Duration::from_millis(window_ms), Duration::from_millis(hold_ms));
        let policy = Policy::new(&CheckSettings {
            rise: u32::try_from(rise).unwrap(),
            fall: u32::try_from(fall).unwrap(),
            damping: Damping { limit: u32::try_from(limit).unwrap(), window, hold },
            ..settings()
        });
        let mut machine = Machine::new(policy, Health::Up);
        let mut now = Instant::now();
        let mut counted: Vec<(Instant, Outcome)> = Vec::new();
        let mut falls: Vec<Instant> = Vec::new();
        for outcome in outcomes {
            let before = machine.health();
            let decision = machine.on_result(now, outcome);
            if outcome != Outcome::Local {
                counted.push((now, outcome));
            }
            let row = |wanted| counted.iter().rev().take_while(move |(_, seen)| *seen == wanted);
            let fallen_too_often = falls.len() >= limit
                && falls[falls.len() - 1] - falls[falls.len() - limit] <= window;
            let held = fallen_too_often && row(Outcome::Success).last().is_none_or(|(since, _)| now - *since < hold);
            let expected = match before {
                Health::Up if row(Outcome::Failure).count() >= fall => Health::Down,
                Health::Down if outcome == Outcome::Success && row(outcome).count() >= rise && !held => Health::Up,
                same @ (Health::Up | Health::Down | Health::Unchecked) => same,
            };
            prop_assert_eq!(machine.health(), expected);
            if decision.transition == Some(Health::Down) {
                falls.push(now);
            }
            now = decision.next;
        }
        // It is never held for ever: with successes only, it is up within the promised time.
        let began = now;
        while machine.health() == Health::Down {
            now = machine.on_result(now, Outcome::Success).next;
            let promised = settings().fast_interval * u32::try_from(rise).unwrap() + hold + settings().interval;
            prop_assert!(now - began <= promised);
        }
    }

    /// The pace stays within the settings, so that neither a storm nor a forgotten backend is possible.
    #[test]
    fn pace_stays_within_its_bounds(outcomes in prop::collection::vec(outcome(), 1..100)) {
        let settings = settings();
        let mut machine = Machine::new(Policy::new(&settings), Health::Unchecked);
        let now = Instant::now();
        for outcome in outcomes {
            let decision = machine.on_result(now, outcome);
            let longest = match machine.health() {
                Health::Down => settings.down_interval_max,
                Health::Up | Health::Unchecked => settings.interval,
            };
            prop_assert!(decision.next - now <= longest);
            prop_assert!(decision.window <= decision.next - now);
            prop_assert!(decision.next - now + decision.window >= settings.fast_interval);
        }
    }

    /// A death or return of a target is detected within the promised time, with any jitter and any duration of checks
    /// within the timeout: one interval until the next check starts, then `fall` or `rise` checks, each at its pace or
    /// at the end of the one before.
    #[test]
    fn a_change_is_found_within_the_promised_time(
        seed in any::<u64>(),
        rise in 1_u32..5,
        fall in 1_u32..5,
        jitter in 0.0..=1.0_f64,
        timeout_ms in 1_u64..3_000,
        changes in 1_u64..100_000,
        dies in any::<bool>(),
    ) {
        let settings = CheckSettings {
            rise,
            fall,
            jitter,
            timeout: Duration::from_millis(timeout_ms),
            ..settings()
        };
        let (before, after, needed, longest) = if dies {
            (Outcome::Success, Outcome::Failure, fall, settings.interval)
        } else {
            let outage = Duration::from_millis(changes) / SHARE_OF_OUTAGE;
            let longest = outage.clamp(settings.interval, settings.down_interval_max);
            (Outcome::Failure, Outcome::Success, rise, longest)
        };
        let pace = settings.fast_interval.max(settings.timeout);
        let promised = longest.mul_f64(1.0 + jitter).max(settings.timeout) + pace * (needed - 1) + settings.timeout;

        let mut machine = Machine::new(Policy::new(&settings), Health::Unchecked);
        let mut scheduler = Scheduler::new(1, seed);
        let mut random = Random::new(seed);
        let mut now = Instant::now();
        let changed = now + Duration::from_millis(changes);
        scheduler.spread(&[((), settings.interval)], now);
        let old = loop {
            now = now.max(scheduler.next_deadline().unwrap());
            let started = now;
            let _ = scheduler.start_due(now).unwrap();
            let outcome = if started < changed { before } else { after };
            let verdict = machine.health();
            now += random.up_to(settings.timeout);
            let decision = machine.on_result(started, outcome);
            scheduler.finish((), now, decision.next, decision.window);
            if started >= changed && decision.transition.is_some() {
                break verdict;
            }
        };
        // Before its first result a target has no verdict that could be wrong; the first one decides it at once.
        prop_assert!(old == Health::Unchecked || now - changed <= promised, "{:?} > {promised:?}", now - changed);
        prop_assert!(old != Health::Unchecked || now - changed <= settings.interval + settings.timeout);
    }
}

/// A check over a kept connection must not find a closed listener later than promised.
#[test]
fn new_connections_are_tried_as_often_as_the_promise_needs() {
    let ms = Duration::from_millis;
    // Interval, fast interval, time-out, fall, and beside how many checks.
    for (interval, fast, timeout, fall, expected) in [
        (2000, 500, 1000, 3, 1),
        (1000, 500, 1000, 3, 2),
        (1000, 200, 500, 2, 1),
        (1000, 1000, 1000, 1, 2),
        (1000, 800, 100, 3, 2),
        (100, 100, 1000, 3, 4),
        (1, 1, 1, 3, 4),
    ] {
        let settings = CheckSettings {
            interval: ms(interval),
            fast_interval: ms(fast),
            timeout: ms(timeout),
            fall,
            jitter: 0.0,
            ..CheckSettings::default()
        };
        let every = knock_every(&settings);
        assert_eq!(every, expected, "{interval} {fast} {timeout} {fall}");
        let found = ms(interval) * every + ms(timeout) + ms(fast.max(timeout)) * (fall - 1);
        assert!(found <= ms(interval) + (ms(fast) + ms(timeout)) * fall);
    }
}
