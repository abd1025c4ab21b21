//! What was measured, in memory that does not grow: a histogram and counters. Intervals add up to a whole.

use std::{ops::Range, time::Duration};

use hdrhistogram::{AdditionError, CreationError, Histogram};

use crate::failure::Failure;

/// The longest latency that a histogram tells apart from longer ones, in nanoseconds: one hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// A start later than this after its time counts as late.
pub(crate) const LATE: Duration = Duration::from_millis(1);
/// Points of a spectrum for each halving of the share of requests that is left.
const SPECTRUM_STEPS: u32 = 2;
/// Statuses of HTTP have three digits.
const STATUSES: usize = 1_000;

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Status; `None` of an echo.
    pub(crate) status: Option<u16>,
    /// Bytes received, as far as the protocol's layer sees them.
    pub(crate) bytes: u64,
}

/// Counts and latencies.
pub(crate) struct Stats {
    latencies: Histogram<u64>,
    statuses: Box<[u64; STATUSES]>,
    failures: [u64; Failure::ALL.len()],
    /// Whole answers, of any status.
    pub(crate) answers: u64,
    /// Bytes of these answers.
    pub(crate) bytes: u64,
    /// Requests that began more than [`LATE`] after their time because no connection was free.
    pub(crate) late: u64,
    /// Requests that began more than [`LATE`] after their time because this tool woke up late.
    pub(crate) overslept: u64,
    /// The latest of these starts.
    pub(crate) latest: Duration,
    /// Requests whose time came without a free connection until the end.
    pub(crate) unsent: u64,
}

impl Stats {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// When the histogram's bounds do not suit it.
    pub(crate) fn new() -> Result<Self, CreationError> {
        let mut latencies = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)?;
        // The kernel gives memory when it is first written: all of it now, so that it does not grow as latencies spread.
        latencies.reset();
        Ok(Self {
            latencies,
            statuses: Box::new([0; STATUSES]),
            failures: [0; Failure::ALL.len()],
            answers: 0,
            bytes: 0,
            late: 0,
            overslept: 0,
            latest: Duration::ZERO,
            unsent: 0,
        })
    }

    /// Counts an exchange that took this long from the time that it was due. Of failures, those that waited for an answer until
    /// the time limit have a latency: without it, percentiles would improve where answers stay away.
    pub(crate) fn exchange(&mut self, result: &Result<Answer, Failure>, latency: Duration) {
        match result {
            Ok(answer) => {
                self.latency(latency);
                self.answers += 1;
                self.bytes += answer.bytes;
                if let Some(status) = answer.status {
                    self.statuses[usize::from(status).min(STATUSES - 1)] += 1;
                    if status >= 400 {
                        self.fail(Failure::Status);
                    }
                }
            }
            Err(failure) => {
                if *failure == Failure::Timeout {
                    self.latency(latency);
                }
                self.fail(*failure);
            }
        }
    }

    /// Counts a start after its time; `was_awaited` tells that the connection was free before.
    pub(crate) fn start(&mut self, lateness: Duration, was_awaited: bool) {
        self.latest = self.latest.max(lateness);
        if lateness > LATE {
            *(if was_awaited {
                &mut self.overslept
            } else {
                &mut self.late
            }) += 1;
        }
    }

    /// Counts a request that was due this long before the end and found no free connection: its latency is at least that.
    pub(crate) fn unsent(&mut self, waited: Duration) {
        self.unsent += 1;
        self.latency(waited);
    }

    /// Counts a latency.
    pub(crate) fn latency(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanos);
    }

    fn fail(&mut self, failure: Failure) {
        // `ALL` has the order of the enum.
        self.failures[failure as usize] += 1;
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.latencies.add(&other.latencies)?;
        let counters = self.statuses.iter_mut().zip(other.statuses.iter());
        let failures = self.failures.iter_mut().zip(&other.failures);
        counters.chain(failures).for_each(|(sum, count)| *sum += count);
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.late += other.late;
        self.overslept += other.overslept;
        self.latest = self.latest.max(other.latest);
        self.unsent += other.unsent;
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.latencies.reset();
        self.statuses.fill(0);
        self.failures.fill(0);
        (self.answers, self.bytes, self.late, self.overslept, self.unsent) = (0, 0, 0, 0, 0);
        self.latest = Duration::ZERO;
    }

    /// The latencies, in nanoseconds.
    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    /// The latency that this percentage of requests did not exceed; `None` without any.
    pub(crate) fn percentile(&self, percent: f64) -> Option<Duration> {
        let any = !self.latencies.is_empty();
        any.then(|| Duration::from_nanos(self.latencies.value_at_quantile(percent / 100.0)))
    }

    /// Shares of requests, from 0 to 1, with the latency that they did not exceed: two for each halving of what is left.
    pub(crate) fn spectrum(&self) -> impl Iterator<Item = (f64, Duration)> {
        let steps = self.latencies.iter_quantiles(SPECTRUM_STEPS);
        steps.map(|step| {
            let latency = Duration::from_nanos(step.value_iterated_to());
            (step.quantile_iterated_to(), latency)
        })
    }

    /// The least latency.
    pub(crate) fn least(&self) -> Option<Duration> {
        let any = !self.latencies.is_empty();
        any.then(|| Duration::from_nanos(self.latencies.min()))
    }

    /// The mean latency.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let any = !self.latencies.is_empty();
        any.then(|| Duration::from_secs_f64(self.latencies.mean() / 1e9))
    }

    /// The greatest latency.
    pub(crate) fn greatest(&self) -> Option<Duration> {
        let any = !self.latencies.is_empty();
        any.then(|| Duration::from_nanos(self.latencies.max()))
    }

    /// Answers with a status in this range.
    pub(crate) fn with_status(&self, range: Range<usize>) -> u64 {
        self.statuses.get(range).unwrap_or_default().iter().sum()
    }

    /// Each status that an answer had, with its number.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (usize, u64)> {
        self.statuses
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, count)| *count > 0)
    }

    /// Each kind of failure that happened, with its number.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        let all = Failure::ALL.into_iter().zip(self.failures);
        all.filter(|(_, count)| *count > 0)
    }

    /// Failures of one kind.
    pub(crate) fn failed(&self, failure: Failure) -> u64 {
        self.failures[failure as usize]
    }

    /// Failures of all kinds.
    pub(crate) fn errors(&self) -> u64 {
        self.failures.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_the_place_of_its_name() {
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
        }
    }

    #[test]
    fn a_timeout_has_a_latency_and_a_refusal_has_none() {
        let mut stats = Stats::new().unwrap();
        stats.exchange(&Err(Failure::Refused), Duration::from_micros(50));
        assert_eq!((stats.percentile(50.0), stats.errors()), (None, 1));
        stats.exchange(&Err(Failure::Timeout), Duration::from_secs(5));
        stats.unsent(Duration::from_secs(7));
        assert_eq!(stats.latencies().len(), 2);
        assert!(stats.greatest().unwrap() >= Duration::from_secs(7));
        let answer = Answer {
            status: Some(503),
            bytes: 3,
        };
        stats.exchange(&Ok(answer), Duration::from_secs(1));
        assert_eq!(
            (stats.with_status(500..600), stats.failed(Failure::Status)),
            (1, 1)
        );
    }

    #[test]
    fn intervals_add_up_to_the_whole() {
        let mut whole = Stats::new().unwrap();
        let mut interval = Stats::new().unwrap();
        for ms in 1..=3 {
            let answer = Answer {
                status: Some(200),
                bytes: 10,
            };
            interval.exchange(&Ok(answer), Duration::from_millis(ms));
            interval.start(Duration::from_millis(ms), ms == 2);
            whole.add(&interval).unwrap();
            interval.clear();
        }
        assert_eq!(
            (whole.answers, whole.bytes, whole.with_status(200..201)),
            (3, 30, 3)
        );
        assert_eq!(
            (whole.late, whole.overslept, whole.latest),
            (1, 1, Duration::from_millis(3))
        );
        assert!(interval.percentile(50.0).is_none());
    }
}
