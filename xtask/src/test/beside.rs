//! Parts of a test run beside one another, each in a process of its own with its output in a file: downloads beside builds, and lanes that
//! wait most of their time beside those that compute.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::part::Part;
use crate::summary::{Count, Summary};

/// Below the build directory: output of each part.
const OUTPUT: &str = "test";
/// Begins the line with which a part tells its counts.
const RESULT: &str = "result of this part: ";

/// Result of a part.
struct Ended {
    part: Part,
    count: Count,
    error: Option<String>,
    elapsed: Duration,
    /// What it printed.
    output: String,
}

/// Prints the counts of a part, as the last that its process prints.
pub(super) fn print_result(count: Count) {
    println!("{RESULT}{} passed; {} failed;", count.passed, count.failed);
}

/// Runs `parts` by `program`, which is this one, each part as soon as what it waits for is there, and prints the output of each when it
/// ends.
///
/// # Errors
/// When a process cannot be started or its output cannot be kept. What then runs is not waited for.
pub(super) fn run(program: impl Fn() -> Command, target: &Path, parts: &[Part]) -> Result<Summary> {
    let dir = target.join(OUTPUT);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    println!("output of a part while it runs: {}/NAME.log", dir.display());
    let (send, receive) = mpsc::channel::<Result<Ended>>();
    let mut waiting = parts.to_vec();
    let mut running: Vec<Part> = Vec::new();
    let mut ended: BTreeMap<usize, Ended> = BTreeMap::new();
    let place = |part: Part| parts.iter().position(|other| *other == part);
    loop {
        let passed = |part: &Part| {
            place(*part)
                .and_then(|place| ended.get(&place))
                .map(|ended| ended.error.is_none())
        };
        match next(&waiting, &running, passed) {
            Some(Next::Start(part)) => {
                waiting.retain(|other| *other != part);
                running.push(part);
                println!("{}: started", part.name());
                let (send, command, dir) = (send.clone(), program(), dir.clone());
                // The receiver is there as long as a part runs.
                thread::spawn(move || send.send(run_one(command, part, &dir)));
            }
            Some(Next::CannotRun(part, need)) => {
                waiting.retain(|other| *other != part);
                let result = Ended {
                    part,
                    count: Count { passed: 0, failed: 1 },
                    error: Some(format!("not run: it needs {}, which failed", need.name())),
                    elapsed: Duration::ZERO,
                    output: String::new(),
                };
                show(&result);
                ended.extend(place(part).map(|place| (place, result)));
            }
            None if running.is_empty() => break,
            None => {
                let result = receive.recv()??;
                running.retain(|other| *other != result.part);
                show(&result);
                ended.extend(place(result.part).map(|place| (place, result)));
            }
        }
    }
    let mut summary = Summary::default();
    for result in ended.into_values() {
        summary.add(result.part.name(), result.count, result.error, result.elapsed);
    }
    Ok(summary)
}

/// What to do next.
#[derive(PartialEq, Eq, Debug)]
enum Next {
    Start(Part),
    /// The first part cannot run without the second one.
    CannotRun(Part, Part),
}

/// The first part that waits for nothing more. `passed` tells of those that have ended.
fn next(waiting: &[Part], running: &[Part], passed: impl Fn(&Part) -> Option<bool>) -> Option<Next> {
    let is_open = |other: &Part| waiting.contains(other) || running.contains(other);
    let is_used = |part: Part| {
        let used = part.uses();
        used.is_some() && running.iter().any(|other| other.uses() == used)
    };
    waiting.iter().find_map(|&part| {
        if let Some(need) = part.needs().iter().find(|need| passed(need) == Some(false)) {
            return Some(Next::CannotRun(part, *need));
        }
        let waits = part.needs().iter().chain(part.follows()).any(is_open);
        (!waits && !is_used(part)).then_some(Next::Start(part))
    })
}

/// Runs a part in a process of its own.
fn run_one(mut command: Command, part: Part, dir: &Path) -> Result<Ended> {
    let log = dir.join(part.name()).with_extension("log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let start = Instant::now();
    let status = command
        .args(["test", "--part", &part.name()])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", part.name()))?;
    let elapsed = start.elapsed();
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let (mut count, reason, output) = read_output(&String::from_utf8_lossy(&text));
    let error = match (status.success(), count, status.code()) {
        (true, Some(_), _) => None,
        (true, None, _) => Some("it ended without a result".to_owned()),
        (false, _, Some(_)) => reason.or_else(|| Some(format!("ended with {status}"))),
        (false, _, None) => Some(format!("ended by {status}")),
    };
    if error.is_some() && count.is_none_or(|count| count.failed == 0) {
        count.get_or_insert_default().failed += 1;
    }
    Ok(Ended {
        part,
        count: count.unwrap_or_default(),
        error,
        elapsed,
        output,
    })
}

/// The counts in a part's output, the error that it ended with, and the output without the counts.
fn read_output(text: &str) -> (Option<Count>, Option<String>, String) {
    let (mut count, mut error, mut output) = (None, None, String::new());
    for line in text.lines() {
        if let Some(result) = line.strip_prefix(RESULT) {
            let mut counts = Count::default();
            counts.add_line(&format!("test result: {result}"));
            count = Some(counts);
            continue;
        }
        error = line.strip_prefix("error: ").map(str::to_owned).or(error);
        output.push_str(line);
        output.push('\n');
    }
    (count, error, output)
}

fn show(ended: &Ended) {
    let (name, seconds) = (ended.part.name(), ended.elapsed.as_secs_f32());
    let result = match &ended.error {
        None => "ok".to_owned(),
        Some(error) => format!("FAILED: {error}"),
    };
    println!("\n== {name} ({seconds:.1} s): {result}\n{}", ended.output);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_when_what_it_needs_passed_and_what_it_follows_ended() {
        let waiting = [Part::Bpf, Part::TestPrograms, Part::Netns];
        let ended = |setup, bpf| {
            move |part: &Part| {
                if *part == Part::Setup { setup } else { bpf }
            }
        };
        assert_eq!(next(&waiting, &[Part::Setup], ended(None, None)), None);
        assert_eq!(
            next(&waiting, &[], ended(Some(true), None)),
            Some(Next::Start(Part::Bpf))
        );
        assert_eq!(
            next(&waiting, &[], ended(Some(false), None)),
            Some(Next::CannotRun(Part::Bpf, Part::Setup))
        );
        // Passed or not.
        assert_eq!(
            next(&waiting[1..2], &[], ended(Some(true), Some(false))),
            Some(Next::Start(Part::TestPrograms))
        );
    }

    #[test]
    fn one_part_at_a_time_has_the_build_directory() {
        let passed = |_: &Part| Some(true);
        let waiting = [Part::TestPrograms, Part::Verifier];
        assert_eq!(
            next(&waiting, &[Part::Lb], passed),
            Some(Next::Start(Part::Verifier))
        );
        assert_eq!(next(&waiting[..1], &[Part::Lb], passed), None);
    }

    /// A shell script in the place of this program.
    #[test]
    fn parts_are_counted_and_one_that_fails_or_is_killed_or_cannot_run_fails_the_run() {
        const SCRIPT: &str = "case $3 in
            fmt) echo 'result of this part: 1 passed; 0 failed;';;
            unit) echo 'what a test printed'; echo 'result of this part: 5 passed; 2 failed;'
                echo 'error: 2 tests failed' >&2; exit 1;;
            setup) echo 'error: of a tool'; kill -KILL $$;;
            tidy) echo 'nothing said';;
            esac";
        let dir = tempfile::tempdir().unwrap();
        let program = || {
            let mut command = Command::new("sh");
            command.args(["-c", SCRIPT, "sh"]);
            command
        };
        let parts = [Part::Tidy, Part::Fmt, Part::Setup, Part::Bpf, Part::Unit];
        let summary = run(program, dir.path(), &parts).unwrap();
        assert!(!summary.passed());
        let table = summary.table();
        for line in [
            "tidy failed: it ended without a result",
            "setup failed: ended by signal: 9 (SIGKILL)",
            "bpf failed: not run: it needs setup, which failed",
            "unit failed: 2 tests failed",
            "total: 6 passed, 5 failed",
        ] {
            assert!(table.contains(line), "{table}");
        }
        assert!(!table.contains("fmt failed"), "{table}");
    }

    #[test]
    fn the_result_is_not_shown_and_the_last_error_is_the_parts_own() {
        let text =
            "error: in a test\ntext\nresult of this part: 1 passed; 1 failed;\nerror: 1 tests failed\n";
        let (count, error, output) = read_output(text);
        assert_eq!(count, Some(Count { passed: 1, failed: 1 }));
        assert_eq!(error.as_deref(), Some("1 tests failed"));
        assert_eq!(output, "error: in a test\ntext\nerror: 1 tests failed\n");
    }
}
