//! When requests are due: the arithmetic of open and closed loops, without a clock. All times count from the begin of the load.

use std::time::Duration;

/// The times of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Requests a second; `None` for a closed loop.
    rate: Option<f64>,
    /// When measuring begins, after the warm-up.
    measured_from: Duration,
    /// When the last request may begin.
    end: Duration,
}

impl Schedule {
    /// A load of `rate` requests a second that is measured for `duration` after `warm_up`.
    pub(crate) fn new(rate: Option<f64>, warm_up: Duration, duration: Duration) -> Self {
        Self {
            rate,
            measured_from: warm_up,
            end: warm_up.saturating_add(duration),
        }
    }

    /// Whether a request begins when an answer has come, and not at a time.
    pub(crate) fn is_closed(&self) -> bool {
        self.rate.is_none()
    }

    /// When measuring begins.
    pub(crate) fn measured_from(&self) -> Duration {
        self.measured_from
    }

    /// When the last request may begin.
    pub(crate) fn end(&self) -> Duration {
        self.end
    }

    /// When request `n` of an open loop, from 0, is due. `None` in a closed loop, and after the last one.
    pub(crate) fn due(&self, n: u64) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss, reason = "exact for 2^53 requests")]
        let due = Duration::try_from_secs_f64(n as f64 / self.rate?).ok()?;
        (due < self.end).then_some(due)
    }

    /// Whether a request that was due, or in a closed loop began, at this time counts.
    pub(crate) fn measures(&self, due: Duration) -> bool {
        (self.measured_from..self.end).contains(&due)
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use super::*;
    use crate::stats::Stats;

    #[test]
    fn requests_are_due_in_equal_steps_until_the_end() {
        let schedule = Schedule::new(Some(1_000.0), Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(2_999), Some(Duration::from_millis(2_999)));
        assert_eq!(schedule.due(3_000), None);
        assert!(!schedule.measures(Duration::from_millis(999)));
        assert!(schedule.measures(Duration::from_secs(1)));
        assert!(!schedule.measures(Duration::from_secs(3)));
        assert_eq!(Schedule::new(None, Duration::ZERO, Duration::MAX).due(0), None);
    }

    /// When a server answers that takes 100 µs for a request, and stalls for the last second of each 10.
    fn answered(begun: Duration) -> Duration {
        let period = Duration::from_secs(10).as_nanos();
        let into = begun.as_nanos() % period;
        let stalls_until = (into >= Duration::from_secs(9).as_nanos())
            .then(|| Duration::from_nanos(u64::try_from(period - into).unwrap()));
        begun + stalls_until.unwrap_or_default() + Duration::from_micros(100)
    }

    /// The latencies that `connections` measure of that server, in simulated time.
    fn simulate(schedule: &Schedule, connections: usize) -> Stats {
        let mut stats = Stats::new().unwrap();
        let mut free: BinaryHeap<_> = (0..connections).map(|_| Reverse(Duration::ZERO)).collect();
        for n in 0.. {
            let Some(Reverse(free_at)) = free.pop() else { break };
            let due = match schedule.rate {
                None => free_at,
                Some(_) => schedule.due(n).unwrap_or(schedule.end),
            };
            if due >= schedule.end {
                break;
            }
            let end = answered(due.max(free_at));
            free.push(Reverse(end));
            stats.latency(end - due);
        }
        stats
    }

    /// A tenth of all requests is due in a stall and waits for its end, evenly between 0 and 1 s: the slowest hundredth of all is the
    /// slowest tenth of these.
    #[test]
    fn a_stall_of_a_tenth_of_the_time_shows_in_p99_at_a_fixed_rate_alone() {
        let time = Duration::from_secs(20);
        let computed = 0.9;
        for (rate, connections) in [(100.0, 1), (1_000.0, 64), (2_000.0, 4)] {
            let open = simulate(&Schedule::new(Some(rate), Duration::ZERO, time), connections);
            let p99 = open.percentile(99.0).unwrap().as_secs_f64();
            // A single connection needs time to send what the stall held up, so its p99 is more.
            let backlog = rate * 100e-6 / connections as f64;
            assert!(
                p99 > computed * 0.95 && p99 < computed * 1.05 + backlog,
                "{rate}/s, {connections}: {p99}"
            );
        }
        let closed = simulate(&Schedule::new(None, Duration::ZERO, time), 4);
        assert!(closed.percentile(99.0).unwrap() < Duration::from_millis(1));
    }
}
