//! Limits that a result must keep, such as `p99<10ms`.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    failure::Failure,
    measured::{self, Measured},
};

/// A limit.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Assertion {
    /// As the user wrote it.
    text: String,
    metric: Metric,
    comparison: Comparison,
    limit: f64,
}

/// What is limited.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Metric {
    Percentile(f64),
    Least,
    Mean,
    Greatest,
    Rate,
    Answers,
    Errors,
    Failure(Failure),
    /// A status, or all of a hundred.
    Status(usize, usize),
    Late,
    Unsent,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// Signs of the comparisons; a sign that begins another comes later.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("!=", Comparison::NotEqual),
    ("==", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("=", Comparison::Equal),
];

/// Units of latencies, in seconds. A unit that ends as another comes earlier.
const UNITS: [(&str, f64); 5] = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];

/// Why a limit cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssertionError {
    /// Without a comparison.
    #[error("{0:?} has no comparison: write it as 'p99<10ms'")]
    Comparison(String),
    /// Of something that is not measured.
    #[error(
        "unknown name {0:?}: there are p50, p99, p99.9 and other percentiles, min, mean, max, rps, requests, errors, late, unsent, \
         statuses such as 503 and 5xx, and the kinds of errors {kinds}",
        kinds = Failure::ALL.map(Failure::name).join(", ")
    )]
    Metric(String),
    /// A value of another form.
    #[error("{text:?}: {value:?} is not {expected}")]
    Value {
        /// The limit.
        text: String,
        /// The value in it.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl FromStr for Assertion {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Self, AssertionError> {
        let at = text.find(['<', '>', '!', '=']);
        let comparison = at.and_then(|at| {
            let (name, rest) = text.split_at(at);
            let mut all = COMPARISONS.iter();
            all.find_map(|(sign, comparison)| Some((name, *comparison, rest.strip_prefix(sign)?)))
        });
        let (name, comparison, value) =
            comparison.ok_or_else(|| AssertionError::Comparison(text.to_owned()))?;
        let metric =
            Metric::named(name.trim()).ok_or_else(|| AssertionError::Metric(name.trim().to_owned()))?;
        let value = value.trim();
        let (limit, expected) = if metric.is_latency() {
            (seconds(value), "a time with its unit, such as 10ms")
        } else {
            (number(value), "a number")
        };
        let limit = limit.ok_or_else(|| AssertionError::Value {
            text: text.to_owned(),
            value: value.to_owned(),
            expected,
        })?;
        Ok(Self {
            text: text.trim().to_owned(),
            metric,
            comparison,
            limit,
        })
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

fn seconds(text: &str) -> Option<f64> {
    let mut units = UNITS.iter();
    let (value, unit) = units.find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    Some(number(value.trim_end())? * unit)
}

impl Metric {
    fn named(name: &str) -> Option<Self> {
        if let Some(percent) = name.strip_prefix('p').and_then(number) {
            return (percent <= 100.0).then_some(Self::Percentile(percent));
        }
        if let Some(failure) = Failure::ALL.into_iter().find(|failure| failure.name() == name) {
            return Some(Self::Failure(failure));
        }
        if let Some(digit) = name
            .strip_suffix("xx")
            .and_then(|digit| digit.parse::<usize>().ok())
        {
            return (1..=9).contains(&digit).then_some(Self::Status(digit * 100, 100));
        }
        if let Ok(status) = name.parse() {
            return (100..=999).contains(&status).then_some(Self::Status(status, 1));
        }
        Some(match name {
            "min" => Self::Least,
            "mean" => Self::Mean,
            "max" => Self::Greatest,
            "rps" => Self::Rate,
            "requests" => Self::Answers,
            "errors" => Self::Errors,
            "late" => Self::Late,
            "unsent" => Self::Unsent,
            _ => return None,
        })
    }

    fn is_latency(self) -> bool {
        match self {
            Self::Percentile(_) | Self::Least | Self::Mean | Self::Greatest => true,
            Self::Rate
            | Self::Answers
            | Self::Errors
            | Self::Failure(_)
            | Self::Status(..)
            | Self::Late
            | Self::Unsent => false,
        }
    }

    /// Its value in a result, in seconds if it is a latency; `None` where nothing was measured.
    #[allow(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn value(self, measured: &Measured) -> Option<f64> {
        let stats = &measured.stats;
        let seconds = |latency: Option<Duration>| latency.map(|latency| latency.as_secs_f64());
        Some(match self {
            Self::Percentile(percent) => return seconds(stats.percentile(percent)),
            Self::Least => return seconds(stats.least()),
            Self::Mean => return seconds(stats.mean()),
            Self::Greatest => return seconds(stats.greatest()),
            Self::Rate => measured.rate(),
            Self::Answers => stats.answers as f64,
            Self::Errors => stats.errors() as f64,
            Self::Failure(failure) => stats.failed(failure) as f64,
            Self::Status(first, count) => stats.with_status(first..first + count) as f64,
            Self::Late => (stats.late + stats.overslept) as f64,
            Self::Unsent => stats.unsent as f64,
        })
    }
}

/// What became of a limit.
pub(crate) struct Verdict<'a> {
    /// The limit as the user wrote it.
    pub(crate) text: &'a str,
    /// Whether it was kept.
    pub(crate) passed: bool,
    /// What was measured, in seconds if it is a latency.
    pub(crate) value: Option<f64>,
    is_latency: bool,
}

impl Assertion {
    /// Compares a result with the limit. A latency of which nothing was measured keeps no limit.
    pub(crate) fn check(&self, measured: &Measured) -> Verdict<'_> {
        let value = self.metric.value(measured);
        #[allow(
            clippy::float_cmp,
            reason = "counts are whole numbers, and a latency is not limited to one value"
        )]
        let kept = |value: f64| match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::LessOrEqual => value <= self.limit,
            Comparison::Greater => value > self.limit,
            Comparison::GreaterOrEqual => value >= self.limit,
            Comparison::Equal => value == self.limit,
            Comparison::NotEqual => value != self.limit,
        };
        Verdict {
            text: &self.text,
            passed: value.is_some_and(kept),
            value,
            is_latency: self.metric.is_latency(),
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed { "passed" } else { "failed" };
        write!(f, "{word}: {}, measured ", self.text)?;
        match self.value {
            None => f.write_str("nothing"),
            Some(value) if self.is_latency => {
                write!(f, "{}", measured::latency(Duration::from_secs_f64(value)))
            }
            Some(value) if value.fract() == 0.0 => write!(f, "{value}"),
            Some(value) => write!(f, "{value:.1}"),
        }
    }
}
