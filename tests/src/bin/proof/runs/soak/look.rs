//! A look at a daemon at rest.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::map_names::{OF_FLOWS, PINNED};
use lb_tests::{daemon::Daemon, wait};

use crate::process;

/// Longest wait until it is at rest.
const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptors that there may be more: a check or a command may be under way. A leak has one for each of thousands.
const DESCRIPTORS: usize = 8;
/// Threads that there may be more: those for blocking calls end when they have had nothing to do for 10 s, and looks are such calls.
const THREADS: usize = 8;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes by which memory may grow from the middle of a run to its end, and the same as a part: what the allocator keeps varies.
const SLACK: f64 = 2e6;
const SLACK_PART: f64 = 0.03;

/// What the daemon holds.
#[derive(Clone, PartialEq)]
pub(super) struct Look {
    /// Seconds since the begin.
    pub(super) at: f64,
    /// Bytes in memory.
    pub(super) memory: f64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    /// Entries in use, by map.
    pub(super) entries: BTreeMap<&'static str, f64>,
    /// Health checks since the start.
    pub(super) checks: f64,
}

impl Look {
    /// Waits until flows have run out and the daemon holds no more than at the first look, but not without end.
    pub(super) fn at_rest(daemon: &Daemon, first: Option<&Self>, begun: Instant) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            let look = Self::now(daemon, begun)?;
            // They are counted now and then.
            let flows: f64 = OF_FLOWS.iter().filter_map(|map| look.entries.get(map)).sum();
            let is_as_before = first.is_none_or(|first| {
                let differences = [
                    look.more_descriptors(first),
                    look.more_threads(first),
                    look.other_entries(first),
                ];
                differences.iter().all(Option::is_none)
            });
            if flows == 0.0 && is_as_before || Instant::now() > end {
                return Ok(look);
            }
            wait::pace(LOOK);
        }
    }

    fn now(daemon: &Daemon, begun: Instant) -> Result<Self> {
        let (pid, metrics) = (daemon.pid()?, daemon.metrics()?);
        let entries = PINNED
            .iter()
            .map(|map| (*map, metrics.sum("lb_map_entries", &[("map", map)])));
        Ok(Self {
            at: begun.elapsed().as_secs_f64(),
            memory: process::resident(pid)?,
            descriptors: process::descriptors(pid)?,
            threads: process::threads(pid)?,
            entries: entries.collect(),
            checks: metrics.sum("lb_health_checks_total", &[]),
        })
    }

    /// What is wrong with the number of descriptors, beside an earlier look.
    pub(super) fn more_descriptors(&self, first: &Self) -> Option<String> {
        more(self.descriptors, first.descriptors, DESCRIPTORS)
    }

    /// The same of threads.
    pub(super) fn more_threads(&self, first: &Self) -> Option<String> {
        more(self.threads, first.threads, THREADS)
    }

    /// Maps with other numbers of entries.
    pub(super) fn other_entries(&self, first: &Self) -> Option<String> {
        let others = self
            .entries
            .iter()
            .filter(|(map, entries)| first.entries.get(*map) != Some(entries));
        let texts: Vec<String> = others
            .map(|(map, entries)| format!("{map}: {entries} after {:?}", first.entries.get(map)))
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

fn more(now: usize, first: usize, slack: usize) -> Option<String> {
    (now > first + slack).then(|| format!("{now} after {first}"))
}

/// What is wrong with the memory: its least value in the last quarter, beside that of the second one. Before that, tables and caches fill.
pub(super) fn growth(looks: &[Look]) -> Option<String> {
    let quarter = looks.len() / 4;
    let least = |looks: &[Look]| looks.iter().map(|look| look.memory).fold(f64::INFINITY, f64::min);
    let before = least(looks.get(quarter..2 * quarter)?);
    let after = least(looks.get(looks.len() - quarter..)?);
    let limit = before * (1.0 + SLACK_PART) + SLACK;
    (after > limit).then(|| format!("{after} bytes after {before}, where {limit:.0} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(memory: impl Fn(f64) -> f64) -> Vec<Look> {
        let look = |at: u32| Look {
            at: at.into(),
            memory: memory(at.into()),
            descriptors: 10,
            threads: 4,
            entries: BTreeMap::new(),
            checks: 0.0,
        };
        (0..40).map(look).collect()
    }

    #[test]
    fn memory_that_goes_on_growing_is_found_and_other_memory_is_not() {
        assert_eq!(growth(&looks(|_| 20e6)), None);
        // Filling in the first quarter, and noise.
        assert_eq!(
            growth(&looks(|at| if at < 10.0 {
                at * 4e6
            } else {
                40e6 + at % 3.0 * 1e6
            })),
            None
        );
        assert!(growth(&looks(|at| 20e6 + at * 0.3e6)).is_some());
    }
}
