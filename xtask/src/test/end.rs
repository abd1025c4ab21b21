//! The end of a test run that does not come to its own: after Ctrl-C, or when it is killed, its parts and all that they started end too,
//! and what they leave is removed.
//!
//! A run locks a file, which the kernel unlocks when the run's process is gone; parts and a guard wait for that.

use std::{
    env,
    fs::{File, TryLockError},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{packages, time_limit, workspace::Workspace};

/// Below the build directory.
const LOCK: &str = "test-run.lock";
/// Between the end of a run and the removal of what it left: killed processes are gone by then.
const PAUSE: Duration = Duration::from_secs(1);

/// A run under way. Dropping it says that it has come to its end.
pub(super) struct Run {
    guard: Child,
    _lock: File,
}

impl Run {
    /// Begins a run.
    ///
    /// # Errors
    /// When another one is under way in this build directory, or the guard cannot be started.
    pub(super) fn begin(target: &Path) -> Result<Self> {
        let lock = open(target)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another test run uses {}: wait for its end", target.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the test run"),
        }
        let program = env::current_exe().context("path of this program")?;
        // In a process group of its own, which Ctrl-C does not reach.
        let guard = Command::new(program)
            .args(["test", "--guard"])
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the guard of the test run")?;
        Ok(Self { guard, _lock: lock })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Before the lock goes. It may have ended by itself only if someone killed it.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

/// Ends this process, and all that it has started, when the run is gone.
///
/// # Errors
/// When the run's file cannot be opened.
pub(super) fn end_with_run(target: &Path) -> Result<()> {
    let lock = open(target)?;
    thread::spawn(move || {
        if lock.lock_shared().is_ok() {
            time_limit::kill_with_children(process::id());
        }
    });
    Ok(())
}

/// Waits until the run is gone, and removes what its tests left.
///
/// # Errors
/// When the run's file cannot be locked.
pub(super) fn guard(workspace: &Workspace) -> Result<()> {
    open(&workspace.target)?
        .lock_shared()
        .context("cannot wait for the end of the test run")?;
    thread::sleep(PAUSE);
    let sweep = sweeper(workspace);
    // A run that was ended before it was built has left nothing.
    if sweep.is_file() {
        let _ = packages::root_command(&sweep)?.status();
    }
    Ok(())
}

/// The program of `lb-tests` that removes remains.
fn sweeper(workspace: &Workspace) -> PathBuf {
    workspace.target.join("debug/sweep")
}

fn open(target: &Path) -> Result<File> {
    let path = target.join(LOCK);
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_do_not_share_a_build_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = open(dir.path()).unwrap();
        lock.lock().unwrap();
        let error = Run::begin(dir.path()).err().unwrap();
        assert!(error.to_string().contains("another test run"), "{error}");
    }
}
