//! From results to a verdict, and to the time of the next check. Pure: time is handed in.

use std::time::{Duration, Instant};

use super::{settings::CheckSettings, status::Health};

/// Shortest interval; less would be a busy loop.
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// Longest interval and time-out, so that no sum of times can overflow.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The numbers that make a verdict of results.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Policy {
    interval: Duration,
    fast_interval: Duration,
    down_interval_max: Duration,
    rise: u32,
    fall: u32,
    jitter: f64,
}

impl Policy {
    /// The policy of `settings`, with numbers that make no sense replaced by the nearest that do: intervals from
    /// [`MIN_INTERVAL`] to [`MAX_INTERVAL`], none of fast and down longer or shorter than its meaning, `rise` and
    /// `fall` at least 1, `jitter` within 0 to 1.
    pub fn new(settings: &CheckSettings) -> Self {
        let interval = settings.interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
        Self {
            interval,
            fast_interval: settings.fast_interval.clamp(MIN_INTERVAL, interval),
            down_interval_max: settings.down_interval_max.clamp(MIN_INTERVAL, MAX_INTERVAL),
            rise: settings.rise.max(1),
            fall: settings.fall.max(1),
            jitter: if settings.jitter.is_nan() {
                0.0
            } else {
                settings.jitter.clamp(0.0, 1.0)
            },
        }
    }

    /// Time between checks while the verdict is settled.
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

/// What a check says about its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing: the check failed for reasons of this machine.
    Local,
}

/// What follows from a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The new verdict, if it changed.
    pub transition: Option<Health>,
    /// When the next check is due.
    pub next: Instant,
    /// By how much the next check may be moved, either way.
    pub window: Duration,
}

/// The verdict about one target.
///
/// Up turns to down after `fall` consecutive failures, down to up after `rise` consecutive successes; while unchecked
/// the first result decides. Results for reasons of this machine change nothing, not even a count.
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Policy,
    health: Health,
    /// Consecutive results against the verdict.
    against: u32,
    /// Time to the next check while down.
    down_interval: Duration,
}

impl Machine {
    /// A machine whose verdict so far is `health`.
    pub fn new(policy: Policy, health: Health) -> Self {
        Self {
            policy,
            health,
            against: 0,
            down_interval: policy.interval.min(policy.down_interval_max),
        }
    }

    /// The verdict.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes the result of the check that started at `started`. Intervals count from start to start.
    pub fn on_result(&mut self, started: Instant, outcome: Outcome) -> Decision {
        let policy = self.policy;
        match (self.health, outcome) {
            (Health::Unchecked, Outcome::Success) => self.turn(started, Health::Up),
            (Health::Unchecked, Outcome::Failure) => self.turn(started, Health::Down),
            (Health::Unchecked, Outcome::Local) => fast(started, &policy),
            (Health::Up, Outcome::Success) => {
                self.against = 0;
                settled(started, policy.interval, &policy)
            }
            (Health::Up, Outcome::Failure) => self.contradict(started, policy.fall, Health::Down),
            (Health::Down, Outcome::Success) => self.contradict(started, policy.rise, Health::Up),
            (Health::Down, Outcome::Failure) => {
                self.against = 0;
                let wait = self.down_interval;
                self.down_interval = wait.saturating_mul(2).min(policy.down_interval_max);
                settled(started, wait, &policy)
            }
            (Health::Up | Health::Down, Outcome::Local) if self.against > 0 => fast(started, &policy),
            (Health::Up, Outcome::Local) => settled(started, policy.interval, &policy),
            (Health::Down, Outcome::Local) => settled(started, self.down_interval, &policy),
        }
    }

    fn contradict(&mut self, started: Instant, needed: u32, verdict: Health) -> Decision {
        self.against += 1;
        if self.against < needed {
            return fast(started, &self.policy);
        }
        self.turn(started, verdict)
    }

    fn turn(&mut self, started: Instant, verdict: Health) -> Decision {
        let first = self.health == Health::Unchecked;
        *self = Self::new(self.policy, verdict);
        let wait = match verdict {
            Health::Down => {
                let wait = self.down_interval;
                self.down_interval = wait.saturating_mul(2).min(self.policy.down_interval_max);
                wait
            }
            Health::Up | Health::Unchecked => self.policy.interval,
        };
        let decision = if first {
            // Checks that began together at a cold start drift apart at once: the second comes anywhere within the
            // first interval.
            Decision {
                transition: None,
                next: started + wait / 2,
                window: wait / 2,
            }
        } else {
            settled(started, wait, &self.policy)
        };
        Decision {
            transition: Some(verdict),
            ..decision
        }
    }
}

fn settled(started: Instant, wait: Duration, policy: &Policy) -> Decision {
    Decision {
        transition: None,
        next: started + wait,
        window: wait.mul_f64(policy.jitter),
    }
}

/// Without jitter: the promised detection time counts on it.
fn fast(started: Instant, policy: &Policy) -> Decision {
    Decision {
        transition: None,
        next: started + policy.fast_interval,
        window: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
