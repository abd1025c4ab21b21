//! From results to a verdict, and to the time of the next check. Pure: time is handed in.

#![warn(clippy::disallowed_methods)]

use std::{
    mem,
    time::{Duration, Instant},
};

use super::{
    damping::{Flaps, MAX_FLAP_LIMIT},
    memory::Known,
    settings::{BreakerSettings, CheckSettings, Damping},
};
use crate::health_state::Health;

/// Shortest interval; less would be a busy loop.
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// Longest interval and time-out, so that no sum of times can overflow.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Between checks of a target that is down passes this part of the time that it has been down: long outages are found to be over late by
/// no more than that, and short ones at the pace of targets that are up.
const SHARE_OF_OUTAGE: u32 = 10;

/// The numbers that make a verdict of results.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Policy {
    interval: Duration,
    fast_interval: Duration,
    down_interval_max: Duration,
    rise: u32,
    fall: u32,
    jitter: f64,
    damping: Damping,
    breaker: BreakerSettings,
}

impl Policy {
    /// The policy of `settings`, with numbers that make no sense replaced by the nearest that do: intervals from
    /// [`MIN_INTERVAL`] to [`MAX_INTERVAL`], none of fast and down longer or shorter than its meaning, `rise` and
    /// `fall` at least 1 and just that for reports, `jitter` within 0 to 1, at most [`MAX_FLAP_LIMIT`] falls and [`super::MAX_BREAKER_FAILURES`] failures
    /// remembered, and times of damping and breaker of [`MAX_INTERVAL`] at most.
    pub fn new(settings: &CheckSettings) -> Self {
        let interval = settings.interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
        let is_report = settings.kind.is_reported();
        Self {
            interval,
            fast_interval: settings.fast_interval.clamp(MIN_INTERVAL, interval),
            down_interval_max: settings.down_interval_max.clamp(MIN_INTERVAL, MAX_INTERVAL),
            rise: if is_report { 1 } else { settings.rise.max(1) },
            fall: if is_report { 1 } else { settings.fall.max(1) },
            jitter: if settings.jitter.is_nan() {
                0.0
            } else {
                settings.jitter.clamp(0.0, 1.0)
            },
            damping: Damping {
                limit: settings.damping.limit.min(MAX_FLAP_LIMIT),
                window: settings.damping.window.min(MAX_INTERVAL),
                hold: settings.damping.hold.min(MAX_INTERVAL),
            },
            breaker: settings.breaker.sensible(MAX_INTERVAL),
        }
    }

    /// Time between checks while the verdict is settled.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Time between checks while results contradict the verdict.
    pub fn fast_interval(&self) -> Duration {
        self.fast_interval
    }

    /// When passive signals take a target out.
    pub(super) fn breaker(&self) -> BreakerSettings {
        self.breaker
    }

    /// How far checks of a settled verdict may be from their phase, either way: two in a row are no further apart than
    /// the jitter allows.
    pub(super) fn shift(&self) -> Duration {
        self.interval.mul_f64(self.jitter) / 2
    }
}

/// After how many checks over a kept connection a new one must be tried: as rarely as the promised detection time,
/// `interval * (1 + jitter) + fall * (fast_interval + timeout)`, allows. With every n-th check, detection takes n
/// intervals, `fall` timeouts, and the time between them: the larger of fast interval and timeout. The smaller one is
/// left over each time, and makes room for further intervals.
pub(super) fn knock_every(settings: &CheckSettings) -> u32 {
    let policy = Policy::new(settings);
    let (fast, timeout) = (policy.fast_interval, settings.timeout.min(MAX_INTERVAL));
    let left_over = fast + fast.min(timeout).saturating_mul(policy.fall - 1);
    let interval = policy.interval.mul_f64(1.0 + policy.jitter);
    let further = left_over.as_nanos() / interval.as_nanos().max(1);
    u32::try_from(further).unwrap_or(u32::MAX).saturating_add(1)
}

/// The result of a check for its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// None: the check failed for reasons of this machine.
    Local,
}

/// The consequence of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The new verdict, if it changed.
    pub transition: Option<Health>,
    /// When the next check is due.
    pub next: Instant,
    /// By how much the next check may be moved, either way.
    pub window: Duration,
    /// Whether it is up without failures since: then `next` may be any time within an interval.
    pub settled: bool,
}

/// The health state machine of one target. Up becomes down after `fall` consecutive failures, down becomes up after
/// `rise` consecutive successes; while unchecked, the first result decides. Local errors change nothing, not even a
/// count. A target that went down too often must also succeed for a time before it is up ([`Damping`]).
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Policy,
    health: Health,
    /// Consecutive results against the verdict.
    against: u32,
    /// The first failure of an outage, as far as this machine has seen it.
    down_since: Option<Instant>,
    flaps: Flaps,
}

impl Machine {
    /// A machine with the initial health state `health`.
    pub fn new(policy: Policy, health: Health) -> Self {
        Self {
            policy,
            health,
            against: 0,
            down_since: None,
            flaps: Flaps::default(),
        }
    }

    /// A machine that continues from an earlier one's memory.
    pub(super) fn recalled(policy: Policy, known: &Known) -> Self {
        Self {
            flaps: Flaps::recalled(known),
            ..Self::new(policy, known.health)
        }
    }

    /// Stores its state in `known`.
    pub(super) fn note(&self, known: &mut Known) {
        known.health = self.health;
        self.flaps.note(known);
    }

    /// The verdict.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether it is held down for having fallen too often.
    pub fn is_damped(&self) -> bool {
        self.flaps.is_damped()
    }

    /// Whether it is up, without failures since.
    pub fn is_settled(&self) -> bool {
        self.health == Health::Up && self.against == 0
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
                self.settled(started, policy.interval)
            }
            (Health::Up, Outcome::Failure) => self.contradict(started, policy.fall, Health::Down),
            (Health::Down, Outcome::Success) => self.rise(started),
            (Health::Down, Outcome::Failure) => {
                self.against = 0;
                self.flaps.failed();
                self.down_since.get_or_insert(started);
                self.settled(started, self.down_interval(started))
            }
            (Health::Up | Health::Down, Outcome::Local) if self.against > 0 => fast(started, &policy),
            (Health::Up, Outcome::Local) => self.settled(started, policy.interval),
            (Health::Down, Outcome::Local) => self.settled(started, self.down_interval(started)),
        }
    }

    fn contradict(&mut self, started: Instant, needed: u32, verdict: Health) -> Decision {
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return fast(started, &self.policy);
        }
        self.turn(started, verdict)
    }

    fn rise(&mut self, started: Instant) -> Decision {
        let left = self.flaps.succeeded(started, &self.policy.damping);
        if left.is_zero() || self.against.saturating_add(1) < self.policy.rise {
            return self.contradict(started, self.policy.rise, Health::Up);
        }
        self.against = self.against.saturating_add(1);
        // Without jitter: the end of the hold is a promise too.
        Decision {
            transition: None,
            next: started + left.min(self.policy.interval).max(self.policy.fast_interval),
            window: Duration::ZERO,
            settled: false,
        }
    }

    fn turn(&mut self, started: Instant, verdict: Health) -> Decision {
        let first = self.health == Health::Unchecked;
        let mut flaps = mem::take(&mut self.flaps);
        match verdict {
            Health::Down => flaps.fell(started, &self.policy.damping),
            Health::Up | Health::Unchecked => flaps.rose(),
        }
        *self = Self {
            flaps,
            ..Self::new(self.policy, verdict)
        };
        let wait = match verdict {
            Health::Down => {
                self.down_since = Some(started);
                self.down_interval(started)
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
                settled: verdict == Health::Up,
            }
        } else {
            self.settled(started, wait)
        };
        Decision {
            transition: Some(verdict),
            ..decision
        }
    }

    /// Time to the next check while down.
    fn down_interval(&self, now: Instant) -> Duration {
        let outage = self
            .down_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let wait = (outage / SHARE_OF_OUTAGE).max(self.policy.interval);
        wait.min(self.policy.down_interval_max)
    }

    fn settled(&self, started: Instant, wait: Duration) -> Decision {
        Decision {
            transition: None,
            next: started + wait,
            window: wait.mul_f64(self.policy.jitter),
            settled: self.health == Health::Up,
        }
    }
}

/// Without jitter: the promised detection time counts on it.
fn fast(started: Instant, policy: &Policy) -> Decision {
    Decision {
        transition: None,
        next: started + policy.fast_interval,
        window: Duration::ZERO,
        settled: false,
    }
}

#[cfg(test)]
mod tests;
