//! Soak test: six hours in simulated time with 50 backends that fail by a seeded script.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::Registry;
use tokio::runtime::Handle;

use super::{memory::held, *};
use crate::{
    Latency, Stage,
    engine::NewCheck,
    environment::Check,
    probe::Checker,
    random::Random,
    settings::{CheckKind, CheckSettings},
    testing::{self, CheckId, CheckSpec},
};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOURS: u32 = 6;
const BACKENDS: u8 = 50;
/// Checks in flight at most: fewer than backends may die at once.
const PLACES: usize = 16;

/// How a backend fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Refused,
    Silent,
}

/// The failures of one backend in that time: outages, long enough to be detected, and blips, too short for that.
#[derive(Debug, Default)]
struct Script {
    outages: Vec<(Duration, Duration, Failure)>,
    blips: Vec<Duration>,
}

impl Script {
    /// Long enough that the checks of a down backend, backed off, are all over before the next outage.
    const QUIET: Duration = MINUTE.saturating_mul(5);
    /// Shorter than it takes to fail `fall` times at the fast interval.
    const BLIP: Duration = Duration::from_millis(900);

    fn new(random: &mut Random) -> Self {
        let mut script = Self::default();
        let mut at = Self::QUIET + random.up_to(MINUTE * 45);
        while at + MINUTE * 60 < MINUTE * 60 * HOURS {
            let end = at + MINUTE + random.up_to(MINUTE * 20);
            let failure = if script.outages.len() % 2 == 0 {
                Failure::Refused
            } else {
                Failure::Silent
            };
            script.outages.push((at, end, failure));
            let blip = end + Self::QUIET + random.up_to(MINUTE * 10);
            script.blips.push(blip);
            at = blip + Self::QUIET + random.up_to(MINUTE * 45);
        }
        script
    }

    fn failure(&self, at: Duration) -> Option<Failure> {
        let outage = self
            .outages
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&at));
        let blip = || {
            self.blips
                .iter()
                .any(|blip| (*blip..*blip + Self::BLIP).contains(&at))
        };
        outage
            .map(|(.., failure)| *failure)
            .or_else(|| blip().then_some(Failure::Refused))
    }
}

/// The environment of the script: each check takes a "connection" for as long as it lasts.
#[derive(Debug)]
struct Scene {
    began: time::Instant,
    scripts: Vec<Script>,
    successes: AtomicU64,
    failures: AtomicU64,
    /// Open now, of each backend and of all.
    connections: Vec<AtomicU64>,
    open: AtomicU64,
    most: AtomicU64,
}

struct Connection<'a>([&'a AtomicU64; 2]);

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        for open in self.0 {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Scene {
    fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// Shared by the loop and the test.
#[derive(Clone, Debug)]
struct Play(Arc<Scene>);

impl Checker for Play {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let scene = &self.0;
        let host = usize::from(target.port());
        let open = &scene.connections[host];
        assert_eq!(
            open.fetch_add(1, Ordering::Relaxed),
            0,
            "{target} is checked twice at a time"
        );
        let all = scene.open.fetch_add(1, Ordering::Relaxed) + 1;
        let _connection = Connection([open, &scene.open]);
        scene.most.fetch_max(all, Ordering::Relaxed);
        let failure = scene.scripts[host].failure(scene.began.elapsed());
        match failure {
            None | Some(Failure::Refused) => time::sleep(MS).await,
            Some(Failure::Silent) => time::sleep(timeout).await,
        }
        let Some(failure) = failure else {
            scene.successes.fetch_add(1, Ordering::Relaxed);
            return Ok(Latency(MS));
        };
        scene.failures.fetch_add(1, Ordering::Relaxed);
        Err(match failure {
            Failure::Refused => CheckError::Refused(target),
            Failure::Silent => CheckError::TimedOut {
                target,
                stage: Stage::Connect,
                after: timeout,
            },
        })
    }
}

impl Check for Play {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Found {
        Found {
            outcome: Checker::check(self, target, timeout).await.map(drop),
            parts: Arc::default(),
            certificate: None,
            serves_one: false,
        }
    }
}

impl Environment for Play {
    type Check = Self;

    fn checks(&mut self, new: &[NewCheck], _reports: &Reports) -> Vec<Self> {
        new.iter().map(|_| self.clone()).collect()
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + MINUTE * 60 * 24 * 20_000 + self.0.began.elapsed()
    }
}

/// Where the log goes.
#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn id(host: u8) -> CheckId {
    testing::id("web", &format!("b{host}"))
}

fn settings() -> CheckSettings {
    CheckSettings {
        kind: CheckKind::Tcp,
        interval: Duration::from_secs(5),
        ..CheckSettings::default()
    }
}

/// The log has changes of state only, each at its time; every check is counted by its result; and in the end, tasks,
/// connections and memory are the same as before.
#[tokio::test(start_paused = true)]
async fn soak_leaves_only_state_changes_behind() {
    let log = Log(Arc::new(Mutex::new(Vec::with_capacity(1 << 20))));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // With one subscriber only, tracing caches the interest of whichever thread comes first, and another test's thread
    // has none.
    let second = tracing_subscriber::fmt().with_writer(io::sink).finish();
    let _second = tracing::Dispatch::new(second);
    let _subscriber = tracing::subscriber::set_default(subscriber);

    let mut random = Random::new(2026);
    let scene = Arc::new(Scene {
        began: time::Instant::now(),
        scripts: (0..BACKENDS).map(|_| Script::new(&mut random)).collect(),
        successes: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        connections: (0..BACKENDS).map(|_| AtomicU64::new(0)).collect(),
        open: AtomicU64::new(0),
        most: AtomicU64::new(0),
    });
    let mut transitions: Vec<Vec<(Duration, Health)>> =
        (0..BACKENDS).map(|_| Vec::with_capacity(64)).collect();

    let tasks = Handle::current().metrics().num_alive_tasks();
    let memory = held();
    {
        let metrics = HealthMetrics::register(&Registry::new()).unwrap();
        let config = HealthConfig {
            max_in_flight: PLACES,
            seed: 7,
        };
        let (runner, handle, mut events) = Runner::new(
            config,
            metrics.clone(),
            Play(Arc::clone(&scene)),
            AgentTask::new(1, metrics.agents.clone()).1,
        );
        let cancel = CancellationToken::new();
        let running = tokio::spawn(runner.run(cancel.clone()));
        let spec = |host| CheckSpec {
            id: id(host),
            target: SocketAddr::from(([10, 0, 0, 1], u16::from(host))),
            path: None,
            settings: settings(),
            initial: Health::Unchecked,
        };
        handle.update((0..BACKENDS).map(spec).collect());

        let mut after_an_hour = None;
        for hour in 1..=HOURS {
            let end = scene.began + MINUTE * 60 * hour;
            while let Ok(event) = time::timeout_at(end, events.recv()).await {
                let HealthEvent { id, health, .. } = event.expect("a running engine");
                let host: usize = id.1.as_str()[1..].parse().unwrap();
                transitions[host].push((scene.began.elapsed(), health));
            }
            // Between two checks, so that all is counted.
            while scene.open() > 0 {
                time::sleep(MS).await;
            }
            assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks + 1);
            let grown = held() - *after_an_hour.get_or_insert(held());
            assert!(
                grown < 64 << 10,
                "{grown} bytes more in hour {hour} than in the first"
            );
        }
        let counted = |result| metrics.checks_counted("web", result);
        assert_eq!(counted("success"), scene.successes.load(Ordering::Relaxed));
        assert_eq!(counted("failure"), scene.failures.load(Ordering::Relaxed));
        assert_eq!(counted("local_error"), 0);
        assert!(scene.most.load(Ordering::Relaxed) <= PLACES as u64);

        handle.update(Vec::new());
        cancel.cancel();
        running.await.unwrap();
    }
    assert_eq!(
        (Handle::current().metrics().num_alive_tasks(), scene.open()),
        (tasks, 0)
    );
    let left = held() - memory;
    assert!(left.abs() < 16 << 10, "{left} bytes are left");

    let CheckSettings {
        interval,
        fast_interval,
        timeout,
        down_interval_max,
        rise,
        fall,
        jitter,
        ..
    } = settings();
    let detection = interval.mul_f64(1.0 + jitter) + (fast_interval + timeout) * fall;
    let recovery = down_interval_max.mul_f64(1.0 + jitter) + timeout + (fast_interval + MS) * rise;
    let mut changes = 0;
    for (script, transitions) in scene.scripts.iter().zip(&transitions) {
        let mut transitions = transitions.iter();
        let mut next = |health, from: Duration, within: Duration| {
            let (at, seen) = transitions.next().expect("a change");
            assert_eq!(*seen, health);
            assert!(
                (from..=from + within).contains(at),
                "{health} at {at:?}, not {within:?} after {from:?}"
            );
            changes += 1;
        };
        next(Health::Up, Duration::ZERO, interval);
        for (from, to, _) in &script.outages {
            next(Health::Down, *from, detection);
            next(Health::Up, *to, recovery);
        }
        assert_eq!(transitions.next(), None, "no other event");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), changes, "one line for each change");
    assert!(log.lines().all(|line| line.contains("health changed")), "{log}");
    let checks = scene.successes.load(Ordering::Relaxed) + scene.failures.load(Ordering::Relaxed);
    // Checks come every 5 s, except in backed-off outages.
    assert!((175_000..225_000).contains(&checks), "{checks} checks");
}
