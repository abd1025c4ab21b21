//! Results of the parts of a test run, and the table at its end.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Tests of one lane, as cargo's test harness counts them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

impl Count {
    /// Adds those of another part of the lane.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Adds the counts in a line of a test program's output: `test result: ok. 12 passed; 0 failed; …`.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |what: &str| {
            let before = result.split(what).next()?.trim_end();
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        self.passed += number("passed;").unwrap_or(0);
        self.failed += number("failed;").unwrap_or(0);
    }
}

/// A part of the run: a check, or a lane of tests.
struct Part {
    name: String,
    count: Count,
    /// The error, if any.
    error: Option<String>,
    elapsed: Duration,
}

/// All parts so far.
#[derive(Default)]
pub(crate) struct Summary {
    parts: Vec<Part>,
}

impl Summary {
    /// Runs a part, which fills in the count.
    pub(crate) fn run(&mut self, name: String, part: impl FnOnce(&mut Count) -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let mut count = Count::default();
        let error = part(&mut count).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("{name}: {error}");
        }
        self.add(name, count, error, start.elapsed());
    }

    /// Adds a part that has ended, with its error if it failed or could not run.
    pub(crate) fn add(&mut self, name: String, count: Count, error: Option<String>, elapsed: Duration) {
        self.parts.push(Part {
            name,
            count,
            error,
            elapsed,
        });
    }

    /// Whether every part ran and passed.
    pub(crate) fn passed(&self) -> bool {
        self.parts
            .iter()
            .all(|part| part.error.is_none() && part.count.failed == 0)
    }

    /// The table of all parts, and a closing line with the sum of their counts. A part that could not run counts as
    /// one that failed.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "\n{:<13} {:>8} {:>8} {:>8}\n",
            "part", "passed", "failed", "seconds"
        );
        let mut sum = Count::default();
        for part in &self.parts {
            let Count { passed, failed } = part.count;
            let _ = writeln!(
                table,
                "{:<13} {passed:>8} {failed:>8} {:>8.1}",
                part.name,
                part.elapsed.as_secs_f32()
            );
            sum.passed += passed;
            sum.failed += if part.error.is_some() {
                failed.max(1)
            } else {
                failed
            };
        }
        for part in &self.parts {
            if let Some(error) = &part.error {
                let first = error.lines().next().unwrap_or_default();
                let _ = writeln!(table, "{} failed: {first}", part.name);
            }
        }
        let _ = write!(table, "\ntotal: {} passed, {} failed", sum.passed, sum.failed);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_test_programs() {
        let mut count = Count::default();
        for line in [
            "running 14 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            count.add_line(line);
        }
        assert_eq!(
            count,
            Count {
                passed: 15,
                failed: 1
            }
        );
    }

    #[test]
    fn a_part_that_could_not_run_fails_the_run_and_counts_once() {
        let mut summary = Summary::default();
        summary.run("good".to_owned(), |count| {
            count.passed = 3;
            Ok(())
        });
        assert!(summary.passed());
        summary.run("broken".to_owned(), |_| anyhow::bail!("no root"));
        assert!(!summary.passed());
        let table = summary.table();
        assert!(table.contains("broken failed: no root"), "{table}");
        assert!(table.ends_with("total: 3 passed, 1 failed"), "{table}");
    }
}
