//! Progress of a long step: its name and the time so far. Its output goes to a log, which is shown only when the step
//! fails.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often the elapsed time is shown on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_secs(1);
/// How often a line is printed where the output is a file, as in CI.
const FILE_INTERVAL: Duration = Duration::from_secs(20);
/// Lines of the log shown when a step fails.
const LOG_LINES_SHOWN: usize = 40;

/// Runs `command` as the step `name`, with its output in the file `log`.
///
/// # Errors
/// When the command cannot be started or fails; the message then ends with the last lines of the log.
pub(crate) fn step(name: &str, log: &Path, command: &mut Command) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // The receiver is dropped only when this program ends.
        let _ = ended.send(());
        status
    });
    let start = Instant::now();
    let terminal = io::stderr().is_terminal();
    let interval = if terminal {
        TERMINAL_INTERVAL
    } else {
        FILE_INTERVAL
    };
    show(terminal, &format!("{name} …"))?;
    while end.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        show(terminal, &format!("{name} … {} s", start.elapsed().as_secs()))?;
    }
    let status = waiter
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that waited for {program} panicked"))??;
    let seconds = start.elapsed().as_secs_f32();
    if !status.success() {
        finish(terminal, &format!("{name} failed after {seconds:.1} s"))?;
        bail!(
            "{name}: {program} ended with {status}; the end of {}:\n{}",
            log.display(),
            tail(log)
        );
    }
    finish(terminal, &format!("{name}: done in {seconds:.1} s"))
}

/// Shows the state of the step; on a terminal over the line before.
fn show(terminal: bool, text: &str) -> Result<()> {
    let mut out = io::stderr().lock();
    if terminal {
        write!(out, "\r\x1b[K{text}")
    } else {
        writeln!(out, "{text}")
    }?;
    Ok(out.flush()?)
}

fn finish(terminal: bool, text: &str) -> Result<()> {
    show(terminal, text)?;
    if terminal {
        writeln!(io::stderr().lock())?;
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = step(
            "try",
            &log,
            Command::new("sh").args(["-c", "echo the reason; exit 3"]),
        )
        .unwrap_err();
        assert!(error.to_string().contains("the reason"), "{error}");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
