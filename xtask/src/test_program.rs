//! Test programs: built with the same choice of crates everywhere, so that each crate is built once, and run.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{summary::Count, time_limit::TimeLimit, workspace::Workspace};

/// Selects the crates of the host. Checks and tests select all, also where they need one: cargo builds a crate once more for each
/// set of features that the selected ones turn on.
pub(crate) const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// Builds the test programs that `selection` selects, as `--test NAME`, and gives the file of the one called `name`.
///
/// # Errors
/// When they do not build, or none has this name.
pub(crate) fn build(workspace: &Workspace, selection: &[&str], name: &str) -> Result<PathBuf> {
    let output = workspace
        .cargo()
        .args(["test", "--no-run", "--message-format", "json-render-diagnostics"])
        .args(HOST_CRATES)
        .args(selection)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "test program {name} does not build");
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("cargo names no test program {name}"))
}

/// Finds a test program in cargo's messages: its file has its name, and a hash.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let mut files = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next())
        .map(Path::new);
    let is_it = |file: &&Path| {
        let stem = file.file_name().and_then(|stem| stem.to_str());
        stem.and_then(|stem| stem.rsplit_once('-'))
            .is_some_and(|(found, _)| found == name)
    };
    files.find(is_it).map(Path::to_path_buf)
}

/// Runs a test command, shows its output as it comes and counts its results.
///
/// # Errors
/// When it cannot be started, fails or hangs.
pub(crate) fn run(command: &mut Command, count: &mut Count) -> Result<()> {
    run_and_see(command, |line| count.add_line(line))
}

/// Runs a test command, shows its output as it comes, and lets `see` see each line of it.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_and_see(command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let output = child.stdout.take().context("no output")?;
    let limit = TimeLimit::start(child.id());
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        see(&line);
    }
    let status = child.wait()?;
    limit.check()?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// Runs each test of a program in a process of its own, `at_a_time` of them beside one another, and shows what those print that fail.
/// Of its own: a process that one test starts would for a moment hold the sockets of all others, and a test that hangs would end them.
/// Those in a module called `alone` come last, one after another; before them, those in `first` come first.
///
/// # Errors
/// When the tests cannot be listed, or one fails.
pub(crate) fn run_each(
    program: impl Fn() -> Result<Command> + Sync,
    first: &[&str],
    at_a_time: usize,
    count: &mut Count,
) -> Result<()> {
    let list = program()?.args(["--list", "--format", "terse"]).output()?;
    let list = String::from_utf8(list.stdout)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<&str> = names.collect();
    for name in first {
        ensure!(
            names.contains(name),
            "no test is called {name}, which is to begin first"
        );
    }
    let names = names.into_iter();
    let (alone, mut beside): (Vec<&str>, Vec<&str>) =
        names.partition(|name| name.split("::").any(|module| module == "alone"));
    beside.sort_by_key(|name| !first.contains(name));
    let total = Mutex::new(Count::default());
    let ran =
        run_some(&program, beside, at_a_time, &total).and_then(|()| run_some(&program, alone, 1, &total));
    count.add(total.into_inner().unwrap_or_else(PoisonError::into_inner));
    ran?;
    if count.failed > 0 {
        bail!("{} tests failed", count.failed);
    }
    Ok(())
}

/// Runs these tests, `at_a_time` of them beside one another.
fn run_some(
    program: &(impl Fn() -> Result<Command> + Sync),
    names: Vec<&str>,
    at_a_time: usize,
    total: &Mutex<Count>,
) -> Result<()> {
    let names = Mutex::new(names.into_iter());
    let work = || -> Result<()> {
        loop {
            let name = names.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(name) = name else { return Ok(()) };
            let of_test = run_one(program()?, name)?;
            total.lock().unwrap_or_else(PoisonError::into_inner).add(of_test);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| {
            let ended = worker.join();
            ended.map_err(|_| anyhow!("a thread that runs tests panicked"))?
        });
        // All are waited for, also after an error.
        results.fold(Ok(()), Result::and)
    })
}

/// Runs one test. One that ends without a result has failed.
fn run_one(mut command: Command, name: &str) -> Result<Count> {
    let begin = Instant::now();
    let child = command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the test {name}"))?;
    let limit = TimeLimit::start(child.id());
    let output = child.wait_with_output()?;
    let in_time = limit.check();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut count = Count::default();
    text.lines().for_each(|line| count.add_line(line));
    let seconds = begin.elapsed().as_secs_f32();
    if output.status.success() && count.passed == 1 {
        println!("test {name} ... ok ({seconds:.1} s)");
        return Ok(count);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let late = in_time.err().map(|late| late.to_string()).unwrap_or_default();
    println!("test {name} ... FAILED ({seconds:.1} s)\n{text}{errors}{late}");
    Ok(Count { passed: 0, failed: 1 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_test_program_is_found_by_its_name() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"executable\":\"/t/debug/deps/lb_tests_of-1f\",\"fresh\":true}\n\
                        {\"executable\":\"/t/debug/deps/lb_tests-2e\",\"fresh\":true}\n\
                        {\"executable\":\"/t/debug/lb\",\"fresh\":true}\n";
        assert_eq!(
            executable(messages, "lb_tests"),
            Some(PathBuf::from("/t/debug/deps/lb_tests-2e"))
        );
        assert_eq!(executable(messages, "lb"), None);
    }

    /// A shell script in the place of a test program, which writes down when a test begins and ends.
    #[test]
    fn a_long_test_begins_first_and_one_that_runs_alone_last() {
        const SCRIPT: &str = "case \"$*\" in
            *--list*) printf 'a: test\\nb::alone::c: test\\nd: test\\n';;
            *) echo \"$2\" >> \"$0\"; echo 'test result: ok. 1 passed; 0 failed; 0 ignored';;
        esac";
        let dir = tempfile::tempdir().unwrap();
        let order = dir.path().join("order");
        let program = || {
            let mut command = Command::new("sh");
            command.args(["-c", SCRIPT]).arg(&order);
            Ok(command)
        };
        let mut count = Count::default();
        run_each(program, &["d"], 1, &mut count).unwrap();
        assert_eq!(count, Count { passed: 3, failed: 0 });
        assert_eq!(fs::read_to_string(order).unwrap(), "d\na\nb::alone::c\n");
    }

    /// A shell script in the place of a test program: one test passes, one fails, one ends without a result.
    #[test]
    fn each_test_is_counted_also_one_that_ends_without_a_result() {
        const SCRIPT: &str = "case \"$*\" in
            *--list*) printf 'good: test\\nbad: test\\nlost: test\\n';;
            *good*) echo 'test result: ok. 1 passed; 0 failed; 0 ignored';;
            *bad*) echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'; exit 101;;
            *) exit 101;;
        esac";
        let program = || {
            let mut command = Command::new("sh");
            command.args(["-c", SCRIPT, "sh"]);
            Ok(command)
        };
        let mut count = Count::default();
        let error = run_each(program, &[], 2, &mut count).unwrap_err();
        assert_eq!(count, Count { passed: 1, failed: 2 });
        assert_eq!(error.to_string(), "2 tests failed");
    }
}
