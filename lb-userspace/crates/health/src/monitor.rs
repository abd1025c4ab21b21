//! One target, watched: for programs that want health checks and no balancer.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{self, Instant},
};

use super::{
    error::{CheckError, Latency},
    machine::{Decision, Machine, Outcome, Policy},
    probe::Checker,
    random::Random,
    settings::CheckSettings,
};
use crate::health_state::Health;

/// The target of a monitor, and its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MonitorConfig {
    /// The address to check.
    pub target: SocketAddr,
    /// When, and how results make a verdict.
    pub policy: Policy,
    /// Time after which a check without a result has failed.
    pub timeout: Duration,
}

impl MonitorConfig {
    /// Intervals, time-out, `rise` and `fall` of `settings`; its kind, port and way do not matter here.
    pub fn new(target: SocketAddr, settings: &CheckSettings) -> Self {
        Self {
            target,
            policy: Policy::new(settings),
            timeout: settings.timeout,
        }
    }
}

/// Statistics of a monitor.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MonitorStats {
    /// Finished checks: successes, failures, and local errors.
    pub attempts: u64,
    /// Checks that succeeded.
    pub successes: u64,
    /// Checks that failed.
    pub failures: u64,
    /// Latest results in a row that were successes (`consecutive_failures` is 0 then).
    pub consecutive_successes: u32,
    /// Latest results in a row that were failures.
    pub consecutive_failures: u32,
    /// Time the latest success took.
    pub last_latency: Option<Latency>,
    /// The latest error, also one that does not count; stays after a success.
    pub last_error: Option<Arc<CheckError>>,
}

/// Why a monitor did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread of health monitors")]
pub struct StartError(#[from] io::Error);

/// Checks a target repeatedly, from [`HealthCheckMonitor::start`] until it is stopped or dropped. A monitor that was
/// never started allocates nothing: programs that make many and start few pay for few.
#[derive(Debug)]
pub struct HealthCheckMonitor<C> {
    config: MonitorConfig,
    /// Until the first start.
    checker: Mutex<Option<C>>,
    /// From the first start on.
    shared: OnceLock<Arc<Shared<C>>>,
}

/// State that a monitor shares with its task.
#[derive(Debug)]
struct Shared<C> {
    checker: C,
    /// The verdict, a [`Health`] as [`code`] writes it.
    health: AtomicU8,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stats: MonitorStats,
    /// Number of starts and stops: results of an earlier run do not count.
    run: u64,
    task: Option<AbortHandle>,
}

impl<C: Checker> HealthCheckMonitor<C> {
    /// A stopped monitor. Does no I/O and starts nothing.
    pub fn new(checker: C, config: MonitorConfig) -> Self {
        Self {
            config,
            checker: Mutex::new(Some(checker)),
            shared: OnceLock::new(),
        }
    }

    /// Starts checking: on the tokio runtime of the caller, or outside of one on a thread that all monitors of the
    /// process share. Does nothing if it runs already; a stopped monitor starts over without a health state.
    ///
    /// # Errors
    /// When the shared thread cannot be made.
    pub fn start(&self) -> Result<(), StartError> {
        self.start_after(Duration::ZERO)
    }

    /// As [`HealthCheckMonitor::start`], with the first check after `delay`: for programs that start many monitors and
    /// want no burst.
    ///
    /// # Errors
    /// When the shared thread cannot be made.
    pub fn start_after(&self, delay: Duration) -> Result<(), StartError> {
        let Some(shared) = self.shared() else {
            return Err(StartError(io::Error::other("an earlier start has panicked")));
        };
        let mut seen = shared.seen();
        if seen.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let runtime = match Handle::try_current() {
            Ok(current) => current,
            Err(_) => shared_runtime()?,
        };
        seen.run += 1;
        let task = runtime.spawn(watch(Arc::clone(shared), self.config, seen.run, delay));
        seen.task = Some(task.abort_handle());
        Ok(())
    }

    /// The state shared with its task, made on first use; `None` if an earlier attempt panicked.
    fn shared(&self) -> Option<&Arc<Shared<C>>> {
        // Locked first: a second caller finds the state that the first has made.
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        match checker.take() {
            Some(checker) => Some(self.shared.get_or_init(|| Arc::new(Shared::new(checker)))),
            None => self.shared.get(),
        }
    }

    /// Stops checking; a check in flight is given up.
    pub fn stop(&self) {
        if let Some(shared) = self.shared.get() {
            shared.stop();
        }
    }

    /// Whether the verdict is up: after the first success, and until `fall` consecutive failures. False while not
    /// running.
    pub fn is_healthy(&self) -> bool {
        self.word() == code(Health::Up)
    }

    /// The verdict; [`Health::Unchecked`] before the first result that counts, and while not running.
    pub fn health(&self) -> Health {
        match self.word() {
            word if word == code(Health::Up) => Health::Up,
            word if word == code(Health::Down) => Health::Down,
            _ => Health::Unchecked,
        }
    }

    /// Its statistics since it was made.
    pub fn stats(&self) -> MonitorStats {
        let shared = self.shared.get();
        shared.map_or_else(MonitorStats::default, |shared| shared.seen().stats.clone())
    }

    fn word(&self) -> u8 {
        let shared = self.shared.get();
        shared.map_or(code(Health::Unchecked), |shared| {
            shared.health.load(Ordering::Acquire)
        })
    }
}

/// A verdict as one byte.
const fn code(health: Health) -> u8 {
    match health {
        Health::Unchecked => 0,
        Health::Up => 1,
        Health::Down => 2,
    }
}

impl<C> Drop for HealthCheckMonitor<C> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.get() {
            shared.stop();
        }
    }
}

async fn watch<C: Checker>(shared: Arc<Shared<C>>, config: MonitorConfig, run: u64, delay: Duration) {
    let MonitorConfig {
        target,
        policy,
        timeout,
    } = config;
    if !delay.is_zero() {
        time::sleep(delay).await;
    }
    let mut machine = Machine::new(policy, Health::Unchecked);
    // The address of the monitor is as good a seed as any: monitors only must not move in step.
    let mut random = Random::new(Arc::as_ptr(&shared).addr() as u64);
    loop {
        if !machine.is_settled() {
            shared.checker.renew();
        }
        let started = Instant::now();
        let result = shared.checker.check(target, timeout).await;
        let Some(decision) = shared.record(run, &mut machine, started, result) else {
            return;
        };
        let shift = random.up_to(decision.window.saturating_mul(2));
        time::sleep_until((decision.next + shift - decision.window).into()).await;
    }
}

impl<C> Shared<C> {
    fn new(checker: C) -> Self {
        Self {
            checker,
            health: AtomicU8::new(code(Health::Unchecked)),
            seen: Mutex::new(Seen::default()),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere leaves counts that are off by one at most.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut seen = self.seen();
        seen.run += 1;
        if let Some(task) = seen.task.take() {
            task.abort();
        }
        self.health.store(code(Health::Unchecked), Ordering::Release);
    }

    /// Counts a result and judges; `None` when the run is over.
    fn record(
        &self,
        run: u64,
        machine: &mut Machine,
        started: Instant,
        result: Result<Latency, CheckError>,
    ) -> Option<Decision> {
        let mut seen = self.seen();
        if seen.run != run {
            return None;
        }
        let decision = machine.on_result(started.into_std(), seen.stats.count(result));
        if let Some(health) = decision.transition {
            self.health.store(code(health), Ordering::Release);
        }
        Some(decision)
    }
}

impl MonitorStats {
    fn count(&mut self, result: Result<Latency, CheckError>) -> Outcome {
        self.attempts += 1;
        match result {
            Ok(latency) => {
                self.successes += 1;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
                self.consecutive_failures = 0;
                self.last_latency = Some(latency);
                Outcome::Success
            }
            Err(error) => {
                let local = error.is_local();
                self.last_error = Some(Arc::new(error));
                if local {
                    return Outcome::Local;
                }
                self.failures += 1;
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                self.consecutive_successes = 0;
                Outcome::Failure
            }
        }
    }
}

/// The event loop of monitors that are started outside of any, made when it is first needed.
fn shared_runtime() -> io::Result<Handle> {
    static SHARED: OnceLock<Handle> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = SHARED.get() {
        return Ok(handle.clone());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("lb-monitors".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(SHARED.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests;
