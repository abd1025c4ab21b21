//! `lb-bench`, the load tool, and peers of it, run in a namespace.

use std::{
    env, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{lb_cli::target_dir, netns::Netns};

/// What a program printed, and what it cost.
pub struct Ended {
    /// Its standard output.
    pub output: String,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
}

impl Ended {
    /// The result of the load tool, which was run with `--json`.
    ///
    /// # Errors
    /// When it printed something else.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.output).with_context(|| format!("no JSON: {}", self.output))
    }
}

/// The load tool: the one that `LB_BENCH_BIN` names, as `cargo xtask bench` builds it, else the one that is built with the tests.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os("LB_BENCH_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_dir()?.join("debug/lb-bench"),
    };
    ensure!(
        path.exists(),
        "no load tool at {}: build it with `cargo build -p lb-bench`, or set LB_BENCH_BIN",
        path.display()
    );
    Ok(path)
}

/// The load tool in a namespace.
///
/// # Errors
/// As [`binary`].
pub fn load_tool(ns: &Netns) -> Result<Command> {
    Ok(ns.command(binary()?))
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<Ended> {
    let name = command.get_program().display().to_string();
    let child = command.stdout(Stdio::piped()).spawn();
    end(child.with_context(|| format!("start {name}"))?).with_context(|| name)
}

/// Waits for the end of a program whose output is a pipe.
///
/// # Errors
/// When it fails.
pub fn end(mut child: Child) -> Result<Ended> {
    let mut output = String::new();
    let mut pipe = child.stdout.take().context("its output is no pipe")?;
    io::Read::read_to_string(&mut pipe, &mut output)?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all bits zero are an rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a status and an rusage to their places, which live until the call returns. The child is ours, and the
    // harness waits for it nowhere else.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "wait: {}", io::Error::last_os_error());
    ensure!(status == 0, "ended with status {status}: {output}");
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::new(
            time.tv_sec.try_into()?,
            u32::try_from(time.tv_usec)? * 1000,
        ))
    };
    Ok(Ended {
        output,
        user: time(usage.ru_utime)?,
        system: time(usage.ru_stime)?,
    })
}
