//! A time limit for test programs that hang, so that a run reports it instead of waiting for ever.

use std::{
    fs,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};

/// Several times the duration of the slowest lane on two busy cores, builds included.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Watches a process: when the time is over it is killed with all that it started.
pub(crate) struct TimeLimit {
    ended: Sender<()>,
    watchdog: JoinHandle<bool>,
    limit: Duration,
}

impl TimeLimit {
    /// Begins to watch.
    pub(crate) fn start(process: u32) -> Self {
        Self::of(process, LIMIT)
    }

    fn of(process: u32, limit: Duration) -> Self {
        let (ended, end) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let over = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if over {
                kill_with_children(process);
            }
            over
        });
        Self {
            ended,
            watchdog,
            limit,
        }
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// When the process was killed.
    pub(crate) fn check(self) -> Result<()> {
        drop(self.ended);
        let over = self
            .watchdog
            .join()
            .map_err(|_| anyhow!("the watchdog panicked"))?;
        if over {
            bail!(
                "killed after {:?}: a test hangs, see the last one that ran",
                self.limit
            );
        }
        Ok(())
    }
}

/// Kills a process with all that it started.
pub(crate) fn kill_with_children(process: u32) {
    kill(&tree(process));
}

/// The process and all that it started, itself first.
fn tree(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let tasks = fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let children: Vec<u32> = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

fn kill(processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // By the shell, which has it built in. The process may have ended already.
    let _ = Command::new("sh")
        .args(["-c", "kill -KILL \"$@\"", "kill"])
        .args(processes)
        .status();
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn hanging_process_is_killed_with_its_children_and_others_are_left_alone() {
        let start = |script| {
            Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        // Its child holds the pipe: the output ends only when the child has ended, too.
        let hangs = start("sleep 600 & wait");
        let limit = TimeLimit::of(hangs.id(), Duration::from_millis(100));
        assert!(!hangs.wait_with_output().unwrap().status.success());
        assert!(limit.check().unwrap_err().to_string().contains("hangs"));

        let ends = start("true");
        let limit = TimeLimit::of(ends.id(), Duration::from_secs(600));
        assert!(ends.wait_with_output().unwrap().status.success());
        limit.check().unwrap();
    }
}
