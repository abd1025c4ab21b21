//! A circuit breaker: takes a target out for failures of its flows, before checks do. Pure: time is passed in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use lb_common::counters::Signals;
use serde::{Deserialize, Serialize};

use super::settings::BreakerSettings;

/// Maximum of `breaker_failures`, which bounds the memory for each target.
pub const MAX_BREAKER_FAILURES: u32 = 1_000;

/// Where a breaker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The target takes flows.
    #[default]
    Closed,
    /// Its flows failed: it takes none.
    Open,
    /// It takes flows on trial: the first failure opens the breaker again.
    HalfOpen,
}

impl BreakerState {
    /// The word that status and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The breaker of one target.
///
/// Closed, it opens when `failures` signals come within `window`. Open, it is half-open after `open`. Half-open, it opens
/// at the first signal and closes after a `window` without any. [`Self::close`] closes it at once: a check has found
/// out how things stand.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: BreakerState,
    /// When the state ends by itself; there is none while closed.
    until: Option<Instant>,
    /// Signals within the window, while closed, and their sum.
    signals: VecDeque<(Instant, Signals)>,
    sum: Signals,
}

impl Breaker {
    /// A breaker that stands where an earlier one stood.
    pub(super) fn recalled(state: BreakerState, until: Option<Instant>) -> Self {
        Self {
            state,
            until: until.filter(|_| state != BreakerState::Closed),
            signals: VecDeque::new(),
            sum: Signals::default(),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// When [`Self::pass`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Takes signals, of which there is at least one. Returns why it opens, if it does.
    pub fn take_signals(
        &mut self,
        signals: Signals,
        now: Instant,
        settings: &BreakerSettings,
    ) -> Option<String> {
        let failures = u64::from(settings.failures);
        if failures == 0 {
            return None;
        }
        let why = match self.state {
            BreakerState::Open => return None,
            BreakerState::HalfOpen => format!("on trial: {}", words(signals)),
            BreakerState::Closed => {
                // Each entry holds at least one signal, so their number is bounded by the limit.
                self.signals.push_back((now, signals));
                self.sum = combined(self.sum, signals, u64::saturating_add);
                let is_old =
                    |(at, _): &mut (Instant, Signals)| now.saturating_duration_since(*at) > settings.window;
                while let Some((_, old)) = self.signals.pop_front_if(is_old) {
                    self.sum = combined(self.sum, old, u64::saturating_sub);
                }
                let sum = self.sum;
                if sum.total() < failures {
                    return None;
                }
                format!(
                    "within {}: {}",
                    humantime::format_duration(settings.window),
                    words(sum)
                )
            }
        };
        self.turn(BreakerState::Open, Some(now + settings.open));
        Some(why)
    }

    /// Notes that time has passed; whether the state changed by that.
    pub fn pass(&mut self, now: Instant, settings: &BreakerSettings) -> bool {
        if self.until.is_none_or(|until| now < until) {
            return false;
        }
        match self.state {
            BreakerState::Open => self.turn(BreakerState::HalfOpen, Some(now + settings.window)),
            BreakerState::HalfOpen | BreakerState::Closed => self.turn(BreakerState::Closed, None),
        }
        true
    }

    /// Closes it; whether it was not closed.
    pub fn close(&mut self) -> bool {
        let was = self.state;
        self.turn(BreakerState::Closed, None);
        was != BreakerState::Closed
    }

    fn turn(&mut self, state: BreakerState, until: Option<Instant>) {
        (self.state, self.until) = (state, until);
        self.signals.clear();
        self.sum = Signals::default();
    }
}

/// Signals kind by kind.
fn combined(a: Signals, b: Signals, of: fn(u64, u64) -> u64) -> Signals {
    Signals {
        unanswered: of(a.unanswered, b.unanswered),
        refused: of(a.refused, b.refused),
        unreachable: of(a.unreachable, b.unreachable),
    }
}

/// Signals in words.
fn words(signals: Signals) -> String {
    let Signals {
        unanswered,
        refused,
        unreachable,
    } = signals;
    format!("{refused} flows refused, {unanswered} SYNs without answer, {unreachable} unreachable")
}

impl BreakerSettings {
    /// These settings with the nearest numbers that make sense.
    pub(super) fn sensible(self, longest: Duration) -> Self {
        Self {
            failures: self.failures.min(MAX_BREAKER_FAILURES),
            window: self.window.min(longest),
            open: self.open.min(longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> BreakerSettings {
        BreakerSettings {
            failures: 3,
            window: 10 * SECOND,
            open: 30 * SECOND,
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// This many flows are refused.
        Refused(u64),
        /// Time is looked at.
        Pass,
        /// A check has succeeded.
        Close,
    }

    #[test]
    fn every_transition() {
        use BreakerState::{Closed, HalfOpen, Open};
        use Step::{Close, Pass, Refused};
        type Case = (&'static str, &'static [(u32, Step, BreakerState)]);
        let cases: [Case; 9] = [
            ("too few", &[(0, Refused(2), Closed), (60, Pass, Closed)]),
            ("enough at once", &[(0, Refused(3), Open)]),
            (
                "enough within the window",
                &[
                    (0, Refused(1), Closed),
                    (5, Refused(1), Closed),
                    (10, Refused(1), Open),
                ],
            ),
            (
                "not within the window",
                &[
                    (0, Refused(1), Closed),
                    (5, Refused(1), Closed),
                    (11, Refused(1), Closed),
                ],
            ),
            (
                "open ends by time",
                &[(0, Refused(3), Open), (29, Pass, Open), (30, Pass, HalfOpen)],
            ),
            (
                "late signals do not count",
                &[
                    (0, Refused(3), Open),
                    (20, Refused(9), Open),
                    (30, Pass, HalfOpen),
                ],
            ),
            (
                "one failure on trial",
                &[
                    (0, Refused(3), Open),
                    (30, Pass, HalfOpen),
                    (39, Refused(1), Open),
                    (68, Pass, Open),
                    (69, Pass, HalfOpen),
                ],
            ),
            (
                "the trial ends",
                &[
                    (0, Refused(3), Open),
                    (30, Pass, HalfOpen),
                    (39, Pass, HalfOpen),
                    (40, Pass, Closed),
                    (41, Refused(2), Closed),
                ],
            ),
            (
                "a success closes it and resets the count",
                &[
                    (0, Refused(3), Open),
                    (1, Close, Closed),
                    (2, Refused(2), Closed),
                    (3, Close, Closed),
                    (4, Refused(1), Closed),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut breaker = Breaker::default();
            let began = Instant::now();
            for (place, (at, step, expected)) in steps.iter().enumerate() {
                let now = began + SECOND * *at;
                let before = breaker.state();
                match step {
                    Refused(refused) => {
                        let signals = Signals {
                            refused: *refused,
                            ..Signals::default()
                        };
                        let opens = breaker.take_signals(signals, now, &settings()).is_some();
                        assert_eq!(opens, before != Open && *expected == Open, "{name}, step {place}");
                    }
                    Pass => assert_eq!(
                        breaker.pass(now, &settings()),
                        before != *expected,
                        "{name}, step {place}"
                    ),
                    Close => assert_eq!(breaker.close(), before != Closed, "{name}, step {place}"),
                }
                assert_eq!(breaker.state(), *expected, "{name}, step {place}");
                assert_eq!(
                    breaker.deadline().is_some(),
                    *expected != Closed,
                    "{name}, step {place}"
                );
            }
        }
    }

    #[test]
    fn breaker_is_off_by_default_and_its_memory_is_bounded() {
        let signals = Signals {
            unanswered: 1,
            ..Signals::default()
        };
        let off = BreakerSettings {
            failures: 0,
            ..settings()
        };
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..10_000 {
            assert_eq!(breaker.take_signals(signals, now, &off), None);
        }
        assert!(breaker.signals.is_empty());
        let most = BreakerSettings {
            failures: MAX_BREAKER_FAILURES,
            ..settings()
        };
        for _ in 0..10_000 {
            let _ = breaker.take_signals(signals, now, &most);
            assert!(breaker.signals.len() < MAX_BREAKER_FAILURES as usize);
        }
    }
}
