//! Rate budgets of the data plane. They are token buckets in the form of the generic cell rate algorithm (ITU-T I.371,
//! annex A): a bucket is the time at which it would be full again, so refusing reads one word, and admitting compares
//! and swaps it.

use crate::plain_data;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds by which a CPU may be late with the time it has read: another one may have used the bucket since.
pub const CLOCK_SLACK: u64 = SECOND;

/// Highest rate of a budget, a second.
pub const MAX_RATE: u32 = 10_000_000;

/// A rate and how much may come at once.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Nanoseconds that one use takes; 0: no limit.
    pub interval: u64,
    /// Nanoseconds that the bucket may run ahead of the time: a burst's, less one event's.
    pub tolerance: u64,
}

impl Budget {
    /// No limit.
    pub const NONE: Self = Self {
        interval: 0,
        tolerance: 0,
    };

    /// `rate` a second, at most `burst` at once; a rate of 0 is no limit, a burst of 0 counts as 1. Never more than the
    /// rate, and at rates of up to [`MAX_RATE`] less by 1 % at most.
    pub const fn new(rate: u32, burst: u32) -> Self {
        if rate == 0 {
            return Self::NONE;
        }
        let interval = SECOND.div_ceil(rate as u64);
        Self {
            interval,
            tolerance: interval * (burst as u64).saturating_sub(1),
        }
    }
}

/// Takes one token: returns the new value of the bucket, or `None` if it is empty. `full_at` is its value, in
/// nanoseconds of the same clock as `now`; 0 is a bucket that was never used. `budget` has a limit. A bucket further
/// ahead than its budget allows was filled under another budget, and counts as unused: a change of the settings takes
/// effect within [`CLOCK_SLACK`], at the price of one burst.
#[inline(always)]
pub const fn take(full_at: u64, now: u64, budget: Budget) -> Option<u64> {
    let latest = now + budget.tolerance;
    if full_at <= now || full_at > latest + budget.interval + CLOCK_SLACK {
        Some(now + budget.interval)
    } else if full_at <= latest {
        Some(full_at + budget.interval)
    } else {
        None
    }
}

/// The buckets of a service, a cache line of their own: CPUs that work for one service do not slow those of another.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Buckets {
    /// Of ICMP messages about packets to the service.
    pub messages: u64,
    /// Of answers to echo requests to its address.
    pub echoes: u64,
    /// Of new flows ([`crate::guard::FlowGuard::all`]).
    pub flows: u64,
    /// Zero.
    pub pad: [u64; 5],
}

const _: () = assert!(size_of::<Buckets>() == 64, "one cache line");

plain_data!(Budget, Buckets);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Admitted of flows that come at these times, with the bucket that is left.
    fn admitted(mut bucket: u64, times: impl IntoIterator<Item = u64>, budget: Budget) -> (u64, u64) {
        let mut count = 0;
        for now in times {
            if let Some(next) = take(bucket, now, budget) {
                bucket = next;
                count += 1;
            }
        }
        (count, bucket)
    }

    #[test]
    fn a_burst_comes_at_once_and_then_one_flow_an_interval() {
        for (rate, burst, at_once) in [(10, 10, 10), (10, 1, 1), (10, 0, 1), (1, 5, 5), (1_000_000, 3, 3)] {
            let budget = Budget::new(rate, burst);
            let now = 77 * SECOND;
            let (count, bucket) = admitted(0, std::iter::repeat_n(now, 50), budget);
            assert_eq!(count, at_once, "{rate} {burst}");
            assert_eq!(take(bucket, now + budget.interval - 1, budget), None, "too early");
            let later = now + budget.interval;
            assert_eq!(
                admitted(bucket, [later, later], budget).0,
                1,
                "one interval, one flow"
            );
            let (count, _) = admitted(bucket, std::iter::repeat_n(now + 1_000 * SECOND, 50), budget);
            assert_eq!(count, at_once, "a rested bucket holds a burst and no more");
        }
    }

    #[test]
    fn a_new_budget_is_in_force_at_once() {
        let now = 1_000 * SECOND;
        let slow = Budget::new(1, 3_600);
        let (_, empty) = admitted(0, std::iter::repeat_n(now, 4_000), slow);
        let fast = Budget::new(100, 10);
        assert_eq!(
            admitted(empty, std::iter::repeat_n(now, 50), fast).0,
            10,
            "clients do not wait for an hour of the old one"
        );
    }

    #[test]
    fn late_cpu_refuses_the_same_as_others() {
        let (now, budget) = (77 * SECOND, Budget::new(1_000, 20));
        let (_, empty) = admitted(0, std::iter::repeat_n(now, 50), budget);
        for late in [0, 1, budget.interval, budget.tolerance, CLOCK_SLACK] {
            assert_eq!(take(empty, now - late, budget), None, "{late} ns late");
        }
    }

    proptest! {
        /// Properties of a token bucket: no stretch of time admits more than the burst plus the rate, and a client
        /// within the rate is never refused.
        #[test]
        fn no_stretch_of_time_admits_more_than_its_burst_and_rate(
            rate in 1..=MAX_RATE,
            burst in 1..2_000_u32,
            start in SECOND..1_000_000 * SECOND,
            gaps in proptest::collection::vec(0..3_u64, 1..400),
            unit in 1..SECOND,
        ) {
            let budget = Budget::new(rate, burst);
            let mut now = start;
            let times: Vec<u64> = gaps.iter().map(|gap| { now += gap * unit; now }).collect();
            let mut bucket = 0;
            let mut passed: Vec<u64> = Vec::new();
            for time in times {
                if let Some(next) = take(bucket, time, budget) {
                    prop_assert!(next > bucket && next <= time + budget.tolerance + budget.interval);
                    bucket = next;
                    passed.push(time);
                } else {
                    prop_assert!(bucket > time + budget.tolerance);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to - from) / budget.interval;
                    prop_assert!((last - first) as u64 <= allowed);
                }
            }
        }

        #[test]
        fn client_within_the_rate_is_never_refused(
            rate in 1..=MAX_RATE, burst in 1..2_000_u32, start in SECOND..1_000_000 * SECOND, late in 0..SECOND,
        ) {
            let budget = Budget::new(rate, burst);
            let times = (0..100).map(|n| start + n * (budget.interval + late));
            prop_assert_eq!(admitted(0, times, budget).0, 100);
        }

        #[test]
        fn a_budget_keeps_to_its_rate_within_a_hundredth(rate in 1..=MAX_RATE) {
            let real = SECOND as f64 / Budget::new(rate, 1).interval as f64;
            prop_assert!(real <= f64::from(rate) && real >= 0.99 * f64::from(rate), "{real} for {rate}");
        }
    }
}
