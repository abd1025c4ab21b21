use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lb_common::counters::Signals;
use prometheus::Registry;
use proptest::prelude::*;

use super::*;
use crate::breaker::BreakerState;
use crate::error::{CheckError, LocalError};
use crate::settings::{BreakerSettings, CheckKind, Damping};
use crate::status::{Judgement, LastCheck};
use crate::testing::{Changes, CheckId, CheckSpec, Engine, HealthEvent, StatusBoard, id};

const MS: Duration = Duration::from_millis(1);

fn settings() -> CheckSettings {
    CheckSettings {
        kind: CheckKind::Tcp,
        interval: 2000 * MS,
        fast_interval: 500 * MS,
        down_interval_max: 20_000 * MS,
        timeout: 1000 * MS,
        rise: 2,
        fall: 3,
        jitter: 0.1,
        ..CheckSettings::default()
    }
}

fn target(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn spec(service: &str, backend: &str, host: u8, settings: CheckSettings) -> CheckSpec {
    CheckSpec {
        id: id(service, backend),
        target: target(host),
        path: None,
        settings,
        initial: Health::Unchecked,
    }
}

/// The answer of a target to a check that began at a time: delay and result.
type Peer = Box<dyn Fn(Duration) -> (Duration, Result<(), CheckError>)>;

/// The engine in simulated time.
struct Simulation {
    engine: Engine,
    board: StatusBoard,
    metrics: HealthMetrics,
    began: Moment,
    /// Time since the beginning.
    now: Duration,
    peers: BTreeMap<SocketAddr, Peer>,
    running: BTreeMap<CheckNo, (Duration, Instant, Result<(), CheckError>)>,
    checks: BTreeMap<CheckNo, NewCheck>,
    events: VecDeque<(Duration, CheckId, Health)>,
    details: Vec<String>,
    /// The memory of `web/a`.
    memory: Memory,
    starts: Vec<(Duration, SocketAddr)>,
    most_in_flight: usize,
}

impl Simulation {
    fn new(max_in_flight: usize, seed: u64) -> Self {
        let board = StatusBoard::default();
        let metrics = HealthMetrics::register(&Registry::new()).unwrap();
        Self {
            engine: Engine::new(max_in_flight, seed, metrics.clone(), board.clone()),
            board,
            metrics,
            began: Moment {
                instant: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            },
            now: Duration::ZERO,
            peers: BTreeMap::new(),
            running: BTreeMap::new(),
            checks: BTreeMap::new(),
            events: VecDeque::new(),
            details: Vec::new(),
            memory: Memory::default(),
            starts: Vec::new(),
            most_in_flight: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            instant: self.began.instant + self.now,
            wall: self.began.wall + self.now,
        }
    }

    fn peer(&mut self, host: u8, answer: impl Fn(Duration) -> (Duration, Result<(), CheckError>) + 'static) {
        self.peers.insert(target(host), Box::new(answer));
    }

    /// A target that answers after 1 ms, except at the given times, when it does not answer.
    fn peer_dead_during(&mut self, host: u8, timeout: Duration, dead: impl Fn(Duration) -> bool + 'static) {
        self.peer(host, move |at| {
            if dead(at) || dead(at + MS) {
                let error = CheckError::TimedOut {
                    target: target(host),
                    stage: crate::Stage::Connect,
                    after: timeout,
                };
                (timeout, Err(error))
            } else {
                (MS, Ok(()))
            }
        });
    }

    fn update(&mut self, specs: Vec<CheckSpec>) -> Changes {
        let moment = self.moment();
        let changes = self.engine.update(specs, moment);
        for no in &changes.stopped {
            self.checks.remove(no);
            self.running.remove(no);
        }
        for check in &changes.started {
            self.checks.insert(check.no, check.clone());
        }
        self.note(&changes.events);
        self.note(&changes.reminders);
        changes
    }

    /// This many flows of `web/a` are refused.
    fn refuse(&mut self, refused: u64) {
        let signals = Signals {
            refused,
            ..Signals::default()
        };
        let moment = self.moment();
        let events = self.engine.take_signals(vec![(id("web", "a"), signals)], moment);
        self.note(&events);
    }

    fn judgement(&self) -> Judgement {
        self.board.snapshot()[&id("web", "a")].judgement
    }

    /// A process that starts `later`, and continues from this one's memory.
    fn restarted(mut self, later: Duration, settings: CheckSettings) -> Self {
        let mut next = Self::new(16, 2);
        next.began.wall = self.moment().wall + later;
        next.peers = std::mem::take(&mut self.peers);
        let memory = serde_json::from_str(&serde_json::to_string(&self.memory).unwrap()).unwrap();
        next.engine.recall([(id("web", "a"), (target(1), memory))].into());
        let initial = self.memory.verdict();
        next.memory = self.memory;
        let spec = CheckSpec {
            initial,
            ..spec("web", "a", 1, settings)
        };
        next.update(vec![spec]);
        next
    }

    fn note(&mut self, events: &[HealthEvent]) {
        for memo in self.engine.memos().iter().chain(events) {
            if memo.id == id("web", "a") {
                self.memory = memo.memory.clone();
            }
        }
        for event in events {
            self.events.push_back((self.now, event.id.clone(), event.health));
            self.details.push(event.detail.clone());
        }
    }

    fn run_until(&mut self, end: Duration) {
        loop {
            let moment = self.moment();
            let passed = self.engine.pass(moment);
            self.note(&passed);
            while let Some(no) = self.engine.start_due(moment.instant) {
                let target = self.checks[&no].target;
                self.starts.push((self.now, target));
                let (after, result) = self.peers[&target](self.now);
                self.running
                    .insert(no, (self.now + after, moment.instant, result));
            }
            self.most_in_flight = self.most_in_flight.max(self.running.len());
            let ends = self.running.iter().map(|(no, (at, ..))| (*at, *no)).min();
            let deadline = self.engine.next_deadline().map(|at| at - self.began.instant);
            let next = ends
                .map(|(at, _)| at)
                .into_iter()
                .chain(deadline)
                .min()
                .unwrap_or(Duration::MAX);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if let Some((_, no)) = ends.filter(|(at, _)| *at == next) {
                let (_, started, outcome) = self.running.remove(&no).unwrap();
                let moment = self.moment();
                let latency = moment.instant - started;
                let last = LastCheck {
                    outcome,
                    latency,
                    at: moment.wall,
                    parts: Default::default(),
                    certificate: None,
                    serves_one: false,
                };
                let events = self.engine.finish(no, started, last, moment);
                self.note(&events);
            }
        }
    }

    fn starts_of(&self, host: u8) -> usize {
        self.starts
            .iter()
            .filter(|(_, seen)| *seen == target(host))
            .count()
    }

    fn health(&self, id: &CheckId) -> Health {
        self.board.snapshot()[id].health
    }

    fn checks_counted(&self, service: &str, result: &str) -> u64 {
        self.metrics.checks_counted(service, result)
    }
}

#[test]
fn equal_checks_of_several_services_are_made_once_and_reported_to_all() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |_| (MS, Ok(())));
    simulation.update(vec![
        spec("web", "a", 1, settings()),
        spec("api", "b", 1, settings()),
        // Another time-out makes it another check.
        spec(
            "admin",
            "c",
            1,
            CheckSettings {
                timeout: 500 * MS,
                ..settings()
            },
        ),
    ]);
    simulation.run_until(100 * MS);
    assert_eq!(simulation.starts_of(1), 2);
    for id in [id("web", "a"), id("api", "b"), id("admin", "c")] {
        assert_eq!(simulation.health(&id), Health::Up);
    }
    assert_eq!(simulation.checks_counted("web", "success"), 1);
    assert_eq!(simulation.checks_counted("api", "success"), 1);
    assert_eq!(simulation.events.len(), 3);
}

/// People must see that one check judges several backends, and not think of each as a check of its own.
#[test]
fn shared_check_lists_its_backends() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |_| (MS, Ok(())));
    let ported = CheckSettings {
        port: Some(80),
        ..settings()
    };
    let alone = CheckSettings {
        rise: 1,
        ..settings()
    };
    let all = || {
        vec![
            spec("web", "a", 1, settings()),
            // The same port, by another key.
            spec("api", "b", 1, ported.clone()),
            spec("admin", "c", 1, alone.clone()),
        ]
    };
    simulation.update(all());
    let shared = |simulation: &Simulation, id: &CheckId| {
        let shared = simulation.board.snapshot()[id].shared.clone();
        shared.unwrap_or_default().to_vec()
    };
    let both = [id("api", "b"), id("web", "a")];
    assert_eq!(shared(&simulation, &both[0]), both);
    assert_eq!(shared(&simulation, &both[1]), both);
    assert_eq!(shared(&simulation, &id("admin", "c")), []);
    simulation.run_until(100 * MS);
    assert_eq!(simulation.starts_of(1), 2);
    // It has one backend when the other service is removed.
    simulation.update(all().split_off(1));
    assert_eq!(shared(&simulation, &both[0]), []);
    assert_eq!(simulation.health(&both[0]), Health::Up);
}

#[test]
fn the_port_of_the_settings_replaces_the_backends() {
    let mut simulation = Simulation::new(10, 1);
    let changes = simulation.update(vec![spec(
        "web",
        "a",
        1,
        CheckSettings {
            port: Some(9000),
            ..settings()
        },
    )]);
    assert_eq!(changes.started[0].target, SocketAddr::from(([10, 0, 0, 1], 9000)));
}

#[test]
fn kind_none_is_never_checked_and_shown_as_unchecked() {
    let mut simulation = Simulation::new(10, 1);
    let none = CheckSettings {
        kind: CheckKind::None,
        ..settings()
    };
    let changes = simulation.update(vec![spec("web", "a", 1, none)]);
    assert_eq!(changes.started, []);
    assert_eq!(simulation.engine.next_deadline(), None);
    assert_eq!(simulation.health(&id("web", "a")), Health::Unchecked);
    assert!(simulation.events.is_empty());
}

#[test]
fn update_does_not_disturb_unchanged_checks() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |_| (MS, Ok(())));
    simulation.peer(2, |_| (MS, Ok(())));
    simulation.peer(3, |_| (MS, Ok(())));
    let a = spec("web", "a", 1, settings());
    simulation.update(vec![a.clone(), spec("web", "b", 2, settings())]);
    simulation.run_until(3000 * MS);
    let before = simulation.board.snapshot()[&id("web", "a")].clone();
    let next = simulation.starts.len();

    let changes = simulation.update(vec![
        a,
        spec(
            "web",
            "b",
            2,
            CheckSettings {
                interval: 1000 * MS,
                ..settings()
            },
        ),
        spec("web", "c", 3, settings()),
    ]);
    let started: Vec<SocketAddr> = changes.started.iter().map(|check| check.target).collect();
    assert_eq!(started, [target(2), target(3)]);
    assert_eq!(changes.stopped.len(), 1);
    assert_eq!(changes.events, []);
    assert_eq!(simulation.board.snapshot()[&id("web", "a")], before);
    // Changed: keeps its verdict. New: has none.
    assert_eq!(simulation.health(&id("web", "b")), Health::Up);
    assert_eq!(simulation.health(&id("web", "c")), Health::Unchecked);
    simulation.run_until(3005 * MS);
    assert!(
        simulation.starts[next..]
            .iter()
            .all(|(_, seen)| *seen == target(3))
    );

    let changes = simulation.update(Vec::new());
    assert_eq!(changes.stopped.len(), 3);
    assert_eq!(simulation.engine.next_deadline(), None);
    assert!(simulation.board.snapshot().is_empty());
}

#[test]
fn new_address_of_a_name_inherits_no_state() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |_| (MS, Ok(())));
    simulation.update(vec![spec("web", "a", 1, settings())]);
    simulation.run_until(100 * MS);
    simulation.events.clear();
    simulation.update(vec![spec("web", "a", 2, settings())]);
    assert_eq!(simulation.health(&id("web", "a")), Health::Unchecked);
    assert_eq!(simulation.board.snapshot()[&id("web", "a")].last_check, None);
    assert_eq!(
        simulation.events.pop_front().map(|(_, _, health)| health),
        Some(Health::Unchecked)
    );
}

/// A backend that is removed and added again before the engine looks keeps its check. The caller has forgotten the
/// health state, so the engine must report it again.
#[test]
fn forgotten_health_state_is_reported_again() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |_| (MS, Ok(())));
    let fresh = spec("web", "a", 1, settings());
    simulation.update(vec![fresh.clone()]);
    simulation.run_until(100 * MS);
    simulation.events.clear();
    let remembered = CheckSpec {
        initial: Health::Up,
        ..fresh.clone()
    };
    simulation.update(vec![remembered]);
    assert!(simulation.events.is_empty());
    simulation.update(vec![fresh]);
    assert_eq!(simulation.events, [(100 * MS, id("web", "a"), Health::Up)]);
}

#[test]
fn a_restored_verdict_stays_until_contradicted() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer_dead_during(1, 1000 * MS, |_| true);
    simulation.peer(2, |_| (MS, Ok(())));
    let up = CheckSpec {
        initial: Health::Up,
        ..spec("web", "a", 1, settings())
    };
    let down = CheckSpec {
        initial: Health::Down,
        ..spec("web", "b", 2, settings())
    };
    simulation.update(vec![up, down]);
    assert_eq!(simulation.health(&id("web", "a")), Health::Up);
    assert_eq!(simulation.health(&id("web", "b")), Health::Down);
    assert!(simulation.events.is_empty(), "a known health state is no event");
    simulation.run_until(20_000 * MS);
    assert_eq!(simulation.health(&id("web", "a")), Health::Down);
    assert_eq!(simulation.health(&id("web", "b")), Health::Up);
    assert_eq!(simulation.events.len(), 2);
    assert!(simulation.starts_of(1) >= 3);
    assert!(simulation.starts_of(2) >= 2);
}

#[test]
fn running_out_of_descriptors_takes_no_backend_out() {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, |at| {
        if at < 1000 * MS {
            return (MS, Ok(()));
        }
        (
            MS,
            Err(CheckError::Local {
                target: target(1),
                error: LocalError::Descriptors,
            }),
        )
    });
    simulation.update(vec![spec("web", "a", 1, settings())]);
    simulation.run_until(60_000 * MS);
    let status = simulation.board.snapshot()[&id("web", "a")].clone();
    assert_eq!(status.health, Health::Up);
    // Yet the operator sees it.
    assert!(
        status
            .last_check
            .unwrap()
            .detail()
            .contains("too many open files")
    );
    assert!(simulation.checks_counted("web", "local_error") > 20);
    assert_eq!(simulation.checks_counted("web", "failure"), 0);
}

#[test]
fn black_holes_within_the_bound_delay_no_other_check() {
    let mut simulation = Simulation::new(64, 1);
    let mut specs = Vec::new();
    for host in 0..100 {
        if host < 40 {
            simulation.peer_dead_during(host, 1000 * MS, |_| true);
        } else {
            simulation.peer(host, |_| (MS, Ok(())));
        }
        specs.push(spec("web", &format!("b{host}"), host, settings()));
    }
    simulation.update(specs);
    simulation.run_until(60_000 * MS);
    assert!(simulation.most_in_flight <= 64);
    for host in 40..100 {
        // 30 intervals of 2 s.
        assert!(
            (27..=34).contains(&simulation.starts_of(host)),
            "{host}: {}",
            simulation.starts_of(host)
        );
    }
    // Backed off: every 2 s for 20 s, and after that when the outage is a tenth longer.
    for host in 0..40 {
        assert!(
            (20..=25).contains(&simulation.starts_of(host)),
            "{host}: {}",
            simulation.starts_of(host)
        );
    }
}

/// While a target is up, each balancer checks it at a time of its own within each interval, give or take half the
/// jitter, whatever happened before, and also after a restart with stored health states.
#[test]
fn a_balancer_keeps_its_phase_over_a_restart() {
    let settled = |node, restarted_after: u32| {
        let mut simulation = Simulation::new(10, node);
        simulation.now = MS * restarted_after;
        let mut specs = Vec::new();
        for host in 0..20 {
            simulation.peer(host, |_| (MS, Ok(())));
            let spec = spec("web", &format!("b{host}"), host, settings());
            specs.push(CheckSpec {
                initial: if restarted_after == 0 {
                    Health::Unchecked
                } else {
                    Health::Up
                },
                ..spec
            });
        }
        simulation.update(specs);
        simulation.run_until(simulation.now + 4000 * MS);
        let from = simulation.starts.len();
        simulation.run_until(simulation.now + 60_000 * MS);
        let interval = settings().interval.as_millis();
        let mut phases: BTreeMap<SocketAddr, Vec<u128>> = BTreeMap::new();
        for (at, target) in &simulation.starts[from..] {
            phases.entry(*target).or_default().push(at.as_millis() % interval);
        }
        phases
    };
    let (first, again, other) = (settled(1, 0), settled(1, 100_123), settled(2, 0));
    // Half the jitter of 10 % of 2 s is 100 ms either way; between two times on a circle of 2 s.
    let apart = |a: u128, b: u128| a.abs_diff(b).min(2000 - a.abs_diff(b));
    let mut in_step = 0;
    for (target, phases) in &first {
        assert!(phases.len() >= 29, "{target}: {phases:?}");
        for phase in phases.iter().chain(&again[target]) {
            assert!(
                apart(phases[0], *phase) <= 201,
                "{target}: {phases:?} {:?}",
                again[target]
            );
        }
        in_step += usize::from(apart(phases[0], other[target][0]) <= 200);
    }
    // By chance, a fifth of them.
    assert!(in_step < 10, "{in_step} of 20 in step with another balancer");
}

/// 50 backends at 5 s for 6 hours, with outages: each outage makes exactly one down and one up event, and no check is
/// left over.
#[test]
fn long_run_reports_changes_only() {
    let minute = Duration::from_secs(60);
    let settings = CheckSettings {
        interval: Duration::from_secs(5),
        ..settings()
    };
    let mut simulation = Simulation::new(64, 1);
    let mut specs = Vec::new();
    for host in 0..50_u8 {
        // Backend n is out for 5 minutes in hour n modulo 6; every other n has a blip of 400 ms each 17 minutes.
        let outage = minute * 60 * (u32::from(host) % 6) + minute * 20;
        simulation.peer_dead_during(host, 1000 * MS, move |at| {
            let blip = host % 2 == 0 && at.as_millis() % (17 * 60 * 1000) < 400 && at > minute;
            blip || (outage..outage + minute * 5).contains(&at)
        });
        specs.push(spec("web", &format!("b{host}"), host, settings.clone()));
    }
    simulation.update(specs.clone());
    simulation.run_until(minute * 60 * 6);
    for CheckSpec { id, .. } in &specs {
        let events = simulation
            .events
            .iter()
            .filter(|(_, seen, _)| seen == id)
            .map(|(_, _, health)| *health);
        assert_eq!(
            events.collect::<Vec<_>>(),
            [Health::Up, Health::Down, Health::Up],
            "{id:?}"
        );
    }
    simulation.update(Vec::new());
    assert_eq!(simulation.engine.scheduler.in_flight(), 0);
    assert!(simulation.engine.checks.is_empty() && simulation.engine.targets.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The documented bounds: a dead backend is found within interval × (1 + jitter) + fall × (fast_interval +
    /// timeout); a recovered one within the time to the next check while down, a tenth of the outage, and `rise` fast checks.
    #[test]
    fn detection_and_recovery_keep_their_bounds(
        interval in 100_u32..5000,
        fast in 50_u32..1000,
        timeout in 10_u32..2000,
        down_max in 100_u32..10_000,
        rise in 1_u32..5,
        fall in 1_u32..5,
        jitter in 0.0_f64..1.0,
        dies in 10_000_u32..40_000,
        outage in 60_000_u32..120_000,
        refuses in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let fast = fast.min(interval);
        let settings = CheckSettings {
            interval: MS * interval,
            fast_interval: MS * fast,
            down_interval_max: MS * down_max,
            timeout: MS * timeout,
            rise,
            fall,
            jitter,
            ..settings()
        };
        let (dies, back) = (MS * dies, MS * (dies + outage));
        let failing = if refuses { MS } else { settings.timeout };
        let mut simulation = Simulation::new(10, seed);
        simulation.peer_dead_during(1, failing, move |at| (dies..back).contains(&at));
        simulation.update(vec![spec("web", "a", 1, settings.clone())]);
        simulation.run_until(back + MS * 1_000_000);

        let seen: Vec<(Duration, Health)> =
            simulation.events.iter().map(|(at, _, health)| (*at, *health)).collect();
        prop_assert_eq!(seen.iter().map(|(_, health)| *health).collect::<Vec<_>>(), [Health::Up, Health::Down, Health::Up]);
        let first_up = seen[0].0;
        prop_assert!(first_up <= 3 * MS);
        let found = seen[1].0 - dies;
        let promised = settings.interval.mul_f64(1.0 + jitter)
            + (settings.fast_interval + settings.timeout) * fall;
        prop_assert!(found <= promised, "found after {found:?}, promised {promised:?}");
        let recovered = seen[2].0 - back;
        let wait = (MS * outage / 10).max(settings.interval).min(settings.down_interval_max);
        let promised = wait.mul_f64(1.0 + jitter)
            + settings.timeout
            + (settings.fast_interval + MS) * (rise - 1)
            + MS;
        prop_assert!(recovered <= promised, "recovered after {recovered:?}, promised {promised:?}");
    }

    /// Without back-off, recovery takes `rise` intervals at most.
    #[test]
    fn recovery_takes_rise_intervals_without_back_off(
        interval in 100_u32..5000,
        fast in 50_u32..5000,
        rise in 1_u32..6,
        back in 60_000_u32..70_000,
        seed in any::<u64>(),
    ) {
        let settings = CheckSettings {
            interval: MS * interval,
            fast_interval: MS * fast,
            down_interval_max: MS * interval,
            rise,
            jitter: 0.0,
            ..settings()
        };
        let back = MS * back;
        let mut simulation = Simulation::new(10, seed);
        simulation.peer_dead_during(1, MS, move |at| at < back);
        simulation.update(vec![spec("web", "a", 1, settings.clone())]);
        simulation.run_until(back + MS * 100_000);
        let (at, _, health) = simulation.events.back().cloned().unwrap();
        prop_assert_eq!(health, Health::Up);
        prop_assert!(at - back <= settings.interval * rise + 2 * MS, "{:?}", at - back);
    }
}

/// A backend that flaps every 20 s is held down, reported as damped, and up again after `flap_hold`.
#[test]
fn flapping_backend_is_held_down_and_reported() {
    let settings = CheckSettings {
        damping: Damping {
            limit: 3,
            window: 300_000 * MS,
            hold: 60_000 * MS,
        },
        ..settings()
    };
    let quiet = Duration::from_secs(600);
    let mut simulation = Simulation::new(10, 1);
    simulation.peer_dead_during(1, MS, move |at| at < quiet && at.as_secs() % 40 >= 20);
    simulation.update(vec![spec("web", "a", 1, settings.clone())]);
    simulation.run_until(quiet);
    let falls = simulation
        .events
        .iter()
        .filter(|(.., health)| *health == Health::Down);
    assert_eq!(falls.count(), 3, "{:?}", simulation.events);
    let status = simulation.board.snapshot()[&id("web", "a")].clone();
    assert_eq!((status.health, status.judgement.damped), (Health::Down, true));
    // Unchanged settings keep the damping.
    simulation.update(vec![spec("web", "a", 1, settings.clone())]);
    assert!(simulation.board.snapshot()[&id("web", "a")].judgement.damped);
    assert!(
        simulation
            .details
            .iter()
            .any(|detail| detail.contains("fell 3 times within 5m: held down until it has succeeded for 1m")),
        "{:?}",
        simulation.details
    );
    simulation.run_until(
        quiet + settings.down_interval_max.mul_f64(1.1) + settings.damping.hold + settings.interval,
    );
    let status = simulation.board.snapshot()[&id("web", "a")].clone();
    assert_eq!((status.health, status.judgement.damped), (Health::Up, false));
}

/// A minute between checks, half a second while something is up.
fn slow() -> CheckSettings {
    CheckSettings {
        interval: 60_000 * MS,
        down_interval_max: 60_000 * MS,
        breaker: BreakerSettings {
            failures: 5,
            window: 10_000 * MS,
            open: 30_000 * MS,
        },
        ..settings()
    }
}

/// A target that is up since a while and was checked a while ago.
fn settled(
    settings: CheckSettings,
    answer: impl Fn(Duration) -> Result<(), CheckError> + 'static,
) -> Simulation {
    let mut simulation = Simulation::new(10, 1);
    simulation.peer(1, move |at| (MS, answer(at)));
    simulation.update(vec![spec("web", "a", 1, settings)]);
    simulation.run_until(100 * MS);
    let first = simulation.engine.next_deadline().unwrap() - simulation.began.instant;
    simulation.run_until(first + 5_000 * MS);
    assert_eq!(simulation.health(&id("web", "a")), Health::Up);
    simulation
}

fn refused() -> CheckError {
    CheckError::Refused(target(1))
}

#[test]
fn suspect_target_is_checked_at_once_and_at_the_fast_interval() {
    let dead = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&dead);
    let mut simulation = settled(slow(), move |_| {
        if seen.load(Ordering::Relaxed) {
            Err(refused())
        } else {
            Ok(())
        }
    });
    let (told_at, before) = (simulation.now, simulation.starts.len());
    simulation.refuse(1);
    assert!(simulation.judgement().suspect);
    simulation.run_until(told_at + 2 * MS);
    assert_eq!(simulation.starts.len(), before + 1, "at once");
    assert_eq!(simulation.judgement(), Judgement::default(), "a success ends it");
    // Again and again: no faster than the fast interval.
    for step in 1..=20 {
        simulation.refuse(1);
        simulation.run_until(told_at + 250 * MS * step);
    }
    assert_eq!(simulation.starts.len(), before + 11);

    simulation.run_until(told_at + 20_000 * MS);
    dead.store(true, Ordering::Relaxed);
    let died = simulation.now;
    simulation.refuse(1);
    simulation.run_until(died + 500 * MS * (slow().fall - 1) + 2 * MS);
    assert_eq!(simulation.health(&id("web", "a")), Health::Down);
    assert!(!simulation.judgement().suspect, "it is down already");
    // A late signal does not disturb the back-off.
    let next = simulation.engine.next_deadline();
    simulation.refuse(100);
    assert_eq!(simulation.engine.next_deadline(), next);
    assert_eq!(simulation.judgement(), Judgement::default());
}

/// A restart must not bring back a flapping backend, nor one whose breaker is open.
#[test]
fn damping_suspicion_and_breakers_outlive_a_restart() {
    let hold = Duration::from_secs(60);
    let damped = CheckSettings {
        damping: Damping {
            limit: 1,
            window: Duration::from_secs(600),
            hold,
        },
        ..slow()
    };
    let died = Duration::from_secs(80);
    let mut simulation = settled(
        damped.clone(),
        move |at| if at < died { Ok(()) } else { Err(refused()) },
    );
    simulation.run_until(died + 60_000 * MS);
    assert!(simulation.judgement().damped, "{:?}", simulation.memory);
    let mut next = simulation.restarted(5_000 * MS, damped);
    next.peer(1, |_| (MS, Ok(())));
    assert!(next.judgement().damped);
    assert_eq!(next.health(&id("web", "a")), Health::Down);
    assert_eq!(next.events, [], "no change");
    next.run_until(hold);
    assert_eq!(
        next.health(&id("web", "a")),
        Health::Down,
        "it has to prove itself"
    );
    next.run_until(2 * hold);
    assert_eq!(next.health(&id("web", "a")), Health::Up);

    let mute = || CheckError::Local {
        target: target(1),
        error: LocalError::Descriptors,
    };
    let mut simulation = settled(slow(), move |at| if at < died { Ok(()) } else { Err(mute()) });
    simulation.run_until(died);
    simulation.refuse(1);
    assert!(simulation.memory.suspect_since.is_some() && simulation.memory.verdict() == Health::Up);
    simulation.refuse(5);
    assert_eq!(simulation.memory.breaker, BreakerState::Open);
    let open = slow().breaker.open;
    let mut next = simulation.restarted(open / 2, slow());
    next.peer(1, move |_| (MS, Err(mute())));
    assert_eq!(next.judgement().breaker, BreakerState::Open);
    assert_eq!(next.health(&id("web", "a")), Health::Down);
    next.run_until(open / 2 - 10 * MS);
    assert_eq!(next.judgement().breaker, BreakerState::Open);
    next.run_until(open / 2 + 10 * MS);
    assert_eq!(next.judgement().breaker, BreakerState::HalfOpen);
    assert_eq!(
        next.health(&id("web", "a")),
        Health::Up,
        "the result of checks before it opened"
    );
}

#[test]
fn signals_without_passive_checks_are_ignored() {
    let deaf = CheckSettings {
        passive: false,
        ..slow()
    };
    let mut simulation = settled(deaf, |_| Ok(()));
    let next = simulation.engine.next_deadline();
    simulation.refuse(100);
    assert_eq!(
        (simulation.engine.next_deadline(), simulation.judgement()),
        (next, Judgement::default())
    );
}

#[test]
fn a_breaker_takes_a_target_out_before_checks_do_and_a_success_brings_it_back() {
    let mut simulation = settled(slow(), |_| Ok(()));
    let told_at = simulation.now;
    simulation.events.clear();
    simulation.refuse(4);
    assert_eq!(simulation.judgement().breaker, BreakerState::Closed);
    simulation.refuse(1);
    assert_eq!(simulation.judgement().breaker, BreakerState::Open);
    assert_eq!(simulation.events, [(told_at, id("web", "a"), Health::Down)]);
    assert_eq!(
        simulation.details.last().unwrap(),
        "circuit breaker open: within 10s: 5 flows refused, 0 SYNs without answer, 0 unreachable"
    );
    simulation.run_until(told_at + 2 * MS);
    assert_eq!(simulation.judgement(), Judgement::default());
    assert_eq!(
        simulation.events.pop_back(),
        Some((told_at + MS, id("web", "a"), Health::Up))
    );
    assert_eq!(simulation.details.last().unwrap(), "ok; circuit breaker closed");
}

#[test]
fn checks_take_over_from_a_breaker_when_they_know() {
    let died = Duration::from_secs(80);
    let mut simulation = settled(slow(), move |at| if at < died { Ok(()) } else { Err(refused()) });
    simulation.run_until(died);
    simulation.events.clear();
    simulation.refuse(5);
    simulation.run_until(died + 1_000 * MS);
    assert_eq!(simulation.judgement().breaker, BreakerState::Open);
    simulation.run_until(died + 5_000 * MS);
    assert_eq!(simulation.judgement(), Judgement::default());
    // Down by the breaker and then by the checks is one change, and only `rise` successes would end it.
    assert_eq!(simulation.events, [(died, id("web", "a"), Health::Down)]);
    assert_eq!(simulation.health(&id("web", "a")), Health::Down);
}

#[test]
fn a_breaker_that_no_check_judges_tries_again_by_itself() {
    let mute = Duration::from_secs(80);
    let local = || CheckError::Local {
        target: target(1),
        error: LocalError::Descriptors,
    };
    let mut simulation = settled(slow(), move |at| if at < mute { Ok(()) } else { Err(local()) });
    simulation.run_until(mute);
    simulation.events.clear();
    simulation.refuse(5);
    let second = 1_000 * MS;
    // Open for 30 s, on trial until the next signal, open, on trial, and closed after 10 s without a failure.
    simulation.run_until(mute + second * 35);
    assert_eq!(simulation.judgement().breaker, BreakerState::HalfOpen);
    simulation.refuse(1);
    simulation.run_until(mute + second * 74);
    assert_eq!(simulation.judgement().breaker, BreakerState::HalfOpen);
    simulation.run_until(mute + second * 76);
    assert_eq!(simulation.judgement().breaker, BreakerState::Closed);
    let events: Vec<_> = simulation
        .events
        .iter()
        .map(|(at, _, health)| ((*at - mute).as_secs(), *health))
        .collect();
    assert_eq!(
        events,
        [
            (0, Health::Down),
            (30, Health::Up),
            (35, Health::Down),
            (65, Health::Up)
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With any signals, a target is down only by `fall` failures of checks or by its open breaker, up again only by a
    /// check or on trial, and never checked faster than at the fast interval.
    #[test]
    fn signals_never_judge_alone(
        details in prop::collection::vec((1_u32..3_000, 0_u64..4), 1..100),
        failing in prop::collection::vec(any::<bool>(), 50),
        seed in any::<u64>(),
    ) {
        let settings = CheckSettings {
            breaker: BreakerSettings { failures: 4, window: 3_000 * MS, open: 2_000 * MS },
            down_interval_max: 2_000 * MS,
            ..settings()
        };
        let mut simulation = Simulation::new(10, seed);
        simulation.peer_dead_during(1, MS, move |at| failing[usize::try_from(at.as_secs() / 4).unwrap() % 50]);
        simulation.update(vec![spec("web", "a", 1, settings.clone())]);
        for (wait, refused) in details {
            simulation.run_until(simulation.now + MS * wait);
            simulation.refuse(refused);
            let judgement = simulation.judgement();
            let machine = simulation.engine.checks.values().next().unwrap().machine.health();
            let expected = if judgement.breaker == BreakerState::Open { Health::Down } else { machine };
            prop_assert_eq!(simulation.health(&id("web", "a")), expected);
            prop_assert!(machine != Health::Down || judgement == Judgement::default());
            prop_assert!(judgement.breaker != BreakerState::Open || judgement.suspect);
        }
        // The second check comes anywhere within the first interval.
        for pair in simulation.starts.windows(2).skip(1) {
            prop_assert!(pair[1].0 - pair[0].0 >= settings.fast_interval, "{:?}", pair);
        }
        // Each event is a change.
        let verdicts: Vec<Health> = simulation.events.iter().map(|(.., health)| *health).collect();
        prop_assert!(verdicts.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", verdicts);
    }
}
