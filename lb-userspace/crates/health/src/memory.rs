//! The memory of checks about a target besides their latest result, in a form that outlives the process.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{breaker::BreakerState, phase::Moment};
use crate::health_state::Health;

/// The memory of checks about a target, by the wall clock: milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The health state by checks alone, without the breaker.
    pub health: Health,
    /// When it fell, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub falls: Vec<u64>,
    /// Whether it is held down for having fallen too often.
    #[serde(skip_serializing_if = "is_false")]
    pub damped: bool,
    /// Since when it has succeeded without a break while it is held down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proving_since: Option<u64>,
    /// Since when its flows fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_since: Option<u64>,
    /// Where its circuit breaker stands.
    #[serde(skip_serializing_if = "is_closed")]
    pub breaker: BreakerState,
    /// When the breaker advances by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_until: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_closed(state: &BreakerState) -> bool {
    *state == BreakerState::Closed
}

impl Memory {
    /// The verdict that follows from it.
    pub fn verdict(&self) -> Health {
        match self.breaker {
            BreakerState::Open => Health::Down,
            BreakerState::Closed | BreakerState::HalfOpen => self.health,
        }
    }

    /// Whether its breaker alone calls it down.
    pub fn is_down_by_breaker(&self) -> bool {
        self.breaker == BreakerState::Open && self.health != Health::Down
    }

    /// The part of it that stays valid if nothing was forwarded meanwhile: up and down are dropped, parts with an
    /// expiry stay.
    #[must_use]
    pub fn after_a_pause(self) -> Self {
        Self {
            health: if self.damped {
                Health::Down
            } else {
                Health::Unchecked
            },
            ..self
        }
    }
}

/// The same by the clock that only goes forward.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Known {
    pub(super) health: Health,
    pub(super) falls: VecDeque<Instant>,
    pub(super) damped: bool,
    pub(super) proving_since: Option<Instant>,
    pub(super) suspect_since: Option<Instant>,
    pub(super) breaker: BreakerState,
    pub(super) breaker_until: Option<Instant>,
}

impl Known {
    pub(super) fn memory(&self, now: Moment) -> Memory {
        let wall = |at: Instant| {
            let past = now.instant.checked_duration_since(at);
            let wall = match past {
                Some(past) => now.wall.checked_sub(past),
                None => now.wall.checked_add(at.saturating_duration_since(now.instant)),
            };
            millis(wall.unwrap_or(now.wall))
        };
        Memory {
            health: self.health,
            falls: self.falls.iter().copied().map(wall).collect(),
            damped: self.damped,
            proving_since: self.proving_since.map(wall),
            suspect_since: self.suspect_since.map(wall),
            breaker: self.breaker,
            breaker_until: self.breaker_until.map(wall),
        }
    }

    /// Times before the boot become the earliest possible; future times (a clock that was set back) become now.
    pub(super) fn recalled(memory: &Memory, now: Moment) -> Self {
        let past = |at: u64| {
            let ago = now.wall.duration_since(wall(at)).unwrap_or_default();
            now.instant.checked_sub(ago)
        };
        let until = |at: u64| now.instant + wall(at).duration_since(now.wall).unwrap_or_default();
        Self {
            health: memory.health,
            falls: memory.falls.iter().copied().filter_map(past).collect(),
            damped: memory.damped,
            proving_since: memory.proving_since.and_then(past),
            suspect_since: memory.suspect_since.and_then(past),
            breaker: memory.breaker,
            breaker_until: memory.breaker_until.map(until),
        }
    }
}

/// Milliseconds since 1970.
pub fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time this many milliseconds after the beginning of 1970; the latest representable one if it is later.
pub fn wall(millis: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(millis))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_restored_by_another_clock() {
        let second = Duration::from_secs(1);
        let epoch = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let boot = Instant::now();
        let before = Moment {
            instant: boot + 1_000 * second,
            wall: epoch,
        };
        let known = |ago: &dyn Fn(u32) -> Instant| Known {
            health: Health::Down,
            falls: [ago(90), ago(30)].into(),
            damped: true,
            proving_since: Some(ago(20)),
            suspect_since: Some(ago(10)),
            breaker: BreakerState::Open,
            breaker_until: Some(ago(0) + 15 * second),
        };
        let memory = known(&|seconds| before.instant - seconds * second).memory(before);
        let text = serde_json::to_string(&memory).unwrap();
        let read: Memory = serde_json::from_str(&text).unwrap();
        assert_eq!(read, memory);
        // Five seconds later in another process, with another monotonic clock.
        let after = Moment {
            instant: boot + 5_000 * second,
            wall: epoch + 5 * second,
        };
        let then = after.instant - 5 * second;
        assert_eq!(
            Known::recalled(&read, after),
            known(&|seconds| then - seconds * second)
        );
    }

    #[test]
    fn most_targets_need_no_more_than_their_verdict() {
        let memory = Memory {
            health: Health::Up,
            ..Memory::default()
        };
        assert_eq!(serde_json::to_string(&memory).unwrap(), r#"{"health":"up"}"#);
    }

    #[test]
    fn pause_keeps_only_parts_with_an_expiry() {
        let up = Memory {
            health: Health::Up,
            breaker: BreakerState::Open,
            ..Memory::default()
        };
        assert_eq!(
            (up.verdict(), up.clone().after_a_pause().verdict()),
            (Health::Down, Health::Down)
        );
        let damped = Memory {
            health: Health::Down,
            damped: true,
            ..Memory::default()
        };
        assert_eq!(damped.clone().after_a_pause(), damped);
        let down = Memory {
            health: Health::Down,
            ..Memory::default()
        };
        assert_eq!(down.after_a_pause(), Memory::default());
    }
}
