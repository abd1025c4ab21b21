//! A set of targets that are checked alike.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use lb_health_core::{
    CheckError, Checker, Checkers, ConfiguredChecker, Health, HealthCheckMonitor, Latency, MAX_IN_FLIGHT,
    MonitorConfig,
};
use lb_model::config;
use tokio::sync::Semaphore;

use crate::{
    code::LbCode,
    status::{LbHealth, LbStatus},
};

/// Permits for checks in flight, of all monitors of the process; the longest waiting check gets the next one.
static PLACES: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);

/// Time between the first checks of targets that start together, so that thousands of them make no burst.
const START_SPACING: Duration = Duration::from_millis(1);

/// Name of the text of settings in error messages.
const SETTINGS: &str = "settings";

/// A checker that takes a place for each check. Time spent waiting for one is not part of the check's time-out.
#[derive(Debug)]
struct Placed(ConfiguredChecker);

impl Checker for Placed {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        // The semaphore is never closed; if it were, checks would run without a bound.
        let _place = PLACES.acquire().await.ok();
        self.0.check(target, timeout).await
    }

    fn renew(&self) {
        self.0.renew();
    }
}

/// A set of targets that are checked alike. May be used by many threads at once.
#[derive(Debug)]
pub(crate) struct Monitor(RwLock<Targets>);

#[derive(Debug)]
struct Targets {
    checkers: Checkers,
    running: bool,
    next: u32,
    numbers: BTreeMap<SocketAddr, u32>,
    targets: BTreeMap<u32, Target>,
}

#[derive(Debug)]
struct Target {
    /// As added; the settings may set another port.
    address: SocketAddr,
    monitor: HealthCheckMonitor<Placed>,
}

impl Monitor {
    /// A monitor at rest, without targets. `settings` are the keys of a `[service.health]` table.
    ///
    /// # Errors
    /// With everything that is wrong with the settings, a line or two for each.
    pub(crate) fn new(settings: &str) -> Result<Self, String> {
        let settings = config::parse_check(settings, SETTINGS).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })?;
        let checkers = Checkers::new(settings).map_err(|why| format!("{SETTINGS}: error: {why}"))?;
        Ok(Self(RwLock::new(Targets {
            checkers,
            running: false,
            next: 0,
            numbers: BTreeMap::new(),
            targets: BTreeMap::new(),
        })))
    }

    /// Adds a target and returns its number; an existing one keeps its number.
    pub(crate) fn add(&self, address: &str) -> Result<u32, LbCode> {
        let address: SocketAddr = address.parse().map_err(|_| LbCode::BadAddress)?;
        let mut targets = self.write();
        if let Some(number) = targets.numbers.get(&address) {
            return Ok(*number);
        }
        let settings = targets.checkers.settings();
        let mut target = address;
        target.set_port(settings.port.unwrap_or(address.port()));
        if target.port() == 0 || target.ip().is_unspecified() {
            return Err(LbCode::BadAddress);
        }
        let config = MonitorConfig::new(target, settings);
        let number = targets.next;
        let next = number.checked_add(1).ok_or(LbCode::Defect)?;
        let monitor = HealthCheckMonitor::new(Placed(targets.checkers.checker()), config);
        if targets.running {
            monitor.start().map_err(|_| LbCode::NoThread)?;
        }
        targets.next = next;
        targets.numbers.insert(address, number);
        targets.targets.insert(number, Target { address, monitor });
        Ok(number)
    }

    /// Removes a target; its number is not used again.
    pub(crate) fn remove(&self, number: u32) -> Result<(), LbCode> {
        let mut targets = self.write();
        let removed = targets.targets.remove(&number).ok_or(LbCode::NoTarget)?;
        targets.numbers.remove(&removed.address);
        Ok(())
    }

    /// Checks all targets from now on, also those that are added later.
    pub(crate) fn start(&self) -> Result<(), LbCode> {
        let mut targets = self.write();
        if targets.running {
            return Ok(());
        }
        let interval = targets.checkers.settings().interval;
        let count = u32::try_from(targets.targets.len()).unwrap_or(u32::MAX);
        let spacing = START_SPACING.min(interval / count.max(1));
        for (place, target) in (0..).zip(targets.targets.values()) {
            target
                .monitor
                .start_after(spacing * place)
                .map_err(|_| LbCode::NoThread)?;
        }
        targets.running = true;
        Ok(())
    }

    /// Stops all checks and forgets the verdicts; counts stay.
    pub(crate) fn stop(&self) {
        let mut targets = self.write();
        targets.running = false;
        targets.targets.values().for_each(|target| target.monitor.stop());
    }

    /// Whether a target is up.
    pub(crate) fn is_healthy(&self, number: u32) -> Result<bool, LbCode> {
        self.with(number, HealthCheckMonitor::is_healthy)
    }

    /// The status of a target.
    pub(crate) fn stats(&self, number: u32) -> Result<LbStatus, LbCode> {
        self.with(number, |monitor| status(number, monitor))
    }

    /// The latest error of a target, in words; `None` if it never had one.
    pub(crate) fn last_error(&self, number: u32) -> Result<Option<Arc<CheckError>>, LbCode> {
        self.with(number, |monitor| monitor.stats().last_error)
    }

    /// Hands the status of each target to `take`, in order of their numbers. Returns how many there are.
    pub(crate) fn status(&self, take: impl FnMut(LbStatus)) -> usize {
        let targets = self.read();
        let all = targets.targets.iter();
        all.map(|(number, target)| status(*number, &target.monitor))
            .for_each(take);
        targets.targets.len()
    }

    fn with<T>(&self, number: u32, read: impl FnOnce(&HealthCheckMonitor<Placed>) -> T) -> Result<T, LbCode> {
        self.read()
            .targets
            .get(&number)
            .map(|target| read(&target.monitor))
            .ok_or(LbCode::NoTarget)
    }

    fn read(&self) -> RwLockReadGuard<'_, Targets> {
        // A panic elsewhere leaves a target out at worst.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Targets> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(number: u32, monitor: &HealthCheckMonitor<Placed>) -> LbStatus {
    let stats = monitor.stats();
    let latency = stats.last_latency.map(|latency| latency.0.as_nanos());
    LbStatus {
        target: number,
        health: match monitor.health() {
            Health::Unchecked => LbHealth::Unchecked,
            Health::Up => LbHealth::Up,
            Health::Down => LbHealth::Down,
        },
        attempts: stats.attempts,
        successes: stats.successes,
        failures: stats.failures,
        consecutive_successes: stats.consecutive_successes,
        consecutive_failures: stats.consecutive_failures,
        latency_ns: latency.map_or(0, |nanos| u64::try_from(nanos).unwrap_or(u64::MAX)),
    }
}
