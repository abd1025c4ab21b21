//! How root lanes share the machine: they fail without root, and heavy ones run alone.
//!
//! The lock is a file, so it also holds between test processes. Light tests share it; tests that measure time or fill
//! the CPUs take it alone.

use std::{
    fs::File,
    io::{self, Write},
    process,
    sync::{
        Once,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{machine, netns, scratch};

/// Name of the modules of tests that run alone. `cargo xtask test` runs those last, one after another: among the others, each would hold a
/// place of one that could run.
const ALONE: &str = "alone";

/// Ten times the longest test: a test that reaches it hangs, and would block the others.
const LONGEST_TEST: Duration = Duration::from_secs(300);

/// Permission to run; dropping it lets others run. A test that holds it for five minutes ends its whole program, and so does
/// a benchmark after a time of its own.
pub struct Lane {
    _lock: File,
    /// Closed by the end of the test, which the watchdog waits for.
    _running: Sender<()>,
}

impl Lane {
    /// Runs beside other light tests.
    ///
    /// # Errors
    /// Without root, or where the lock file cannot be made.
    pub fn shared() -> Result<Self> {
        let lock = open()?;
        lock.lock_shared().context("lock the lane")?;
        Self::watched(lock, LONGEST_TEST)
    }

    /// Runs alone: waits until every other test has ended. For tests in a module called `alone`, benchmarks and the demo.
    ///
    /// # Errors
    /// As [`Lane::shared`], and for a test elsewhere.
    pub fn alone() -> Result<Self> {
        let name = thread::current().name().map(str::to_owned).unwrap_or_default();
        ensure!(
            is_in_place(&name),
            "{name} runs alone, so it belongs in a module called `{ALONE}`"
        );
        Self::alone_for(LONGEST_TEST)
    }

    /// As [`Lane::alone`], for a benchmark that hangs only after this time.
    ///
    /// # Errors
    /// As [`Lane::shared`].
    pub fn alone_for(limit: Duration) -> Result<Self> {
        let lock = open()?;
        lock.lock().context("lock the lane")?;
        Self::watched(lock, limit)
    }

    fn watched(lock: File, limit: Duration) -> Result<Self> {
        let (running, end) = mpsc::channel::<()>();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let watch = move || {
            if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // Not through eprintln!, whose text the test program would capture.
                let _ = writeln!(io::stderr(), "{test} hangs: still running after {limit:?}");
                process::exit(101);
            }
        };
        thread::Builder::new()
            .spawn(watch)
            .context("start the watchdog")?;
        Ok(Self {
            _lock: lock,
            _running: running,
        })
    }
}

/// Removes what tests have left whose processes are dead.
pub fn sweep() {
    netns::sweep();
    scratch::sweep();
    machine::sweep();
}

/// Whether what has this name may run alone. Threads of tests have the names of the tests; others have no path.
fn is_in_place(name: &str) -> bool {
    !name.contains("::") || name.split("::").any(|module| module == ALONE)
}

fn open() -> Result<File> {
    // SAFETY: geteuid takes no arguments and cannot fail.
    let euid = unsafe { libc::geteuid() };
    ensure!(
        euid == 0,
        "this lane needs root (network namespaces, BPF): run it as root, or through `cargo xtask test`"
    );
    static SWEEP: Once = Once::new();
    SWEEP.call_once(sweep);
    let path = std::env::temp_dir().join("lbt.lane.lock");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_runs_alone_says_so_by_its_module() {
        let cases = [
            ("limits::alone::a_flood", true),
            ("limits::a_flood_alone", false),
            ("main", true),
        ];
        for (name, expected) in cases {
            assert_eq!(is_in_place(name), expected, "{name}");
        }
    }
}
