//! `lb decap` on a backend.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{lb_cli::lb_binary, netns::Netns, scratch::Scratch, wait};

/// A running `lb decap`, taken off with its guard.
pub struct Decap {
    child: Child,
    scratch: Scratch,
}

impl Decap {
    /// Starts it on a device, for tunnels from these prefixes.
    ///
    /// # Errors
    /// When it does not come up; with its output.
    pub fn start(ns: &Netns, device: &str, from: &[String]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let pins = scratch.join("pins");
        Self::start_pinned(ns, device, from, scratch, (&pins, "auto"))
    }

    /// As [`Decap::start`], in generic mode.
    ///
    /// # Errors
    /// As [`Decap::start`].
    pub fn start_generic(ns: &Netns, device: &str, from: &[String]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let pins = scratch.join("pins");
        Self::start_pinned(ns, device, from, scratch, (&pins, "generic"))
    }

    /// As [`Decap::start`], with pins that outlive this guard.
    ///
    /// # Errors
    /// As [`Decap::start`].
    pub fn start_in(ns: &Netns, device: &str, from: &[String], pins: &Path) -> Result<Self> {
        Self::start_pinned(ns, device, from, Scratch::new()?, (pins, "auto"))
    }

    fn start_pinned(
        ns: &Netns,
        device: &str,
        from: &[String],
        scratch: Scratch,
        (pins, mode): (&Path, &str),
    ) -> Result<Self> {
        let (out, log) = (
            File::create(scratch.join("out"))?,
            File::create(scratch.join("log"))?,
        );
        let mut command = ns.command(lb_binary()?);
        command
            .args(["-o", "json", "decap", "--iface", device, "--pin-dir"])
            .arg(pins)
            .args(["--xdp-mode", mode]);
        for prefix in from {
            command.args(["--from", prefix]);
        }
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        let mut decap = Self {
            child: command.spawn().context("start lb decap")?,
            scratch,
        };
        wait::until_true("lb decap works", Duration::from_secs(10), || {
            let log = fs::read_to_string(decap.scratch.join("log"))?;
            ensure!(decap.child.try_wait()?.is_none(), "lb decap ended: {log}");
            Ok(log.contains("Ctrl-C"))
        })?;
        Ok(decap)
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// Kills it as a crash would, and waits for its end.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as Ctrl-C does and returns its counts, by outcome of packets.
    ///
    /// # Errors
    /// When it does not end, or fails.
    pub fn stop(mut self) -> Result<Value> {
        // SAFETY: kill takes numbers; the child is ours and not yet waited for, so the id cannot be another's.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) };
        ensure!(result == 0, "kill: {}", std::io::Error::last_os_error());
        let status = wait::until("lb decap ends", Duration::from_secs(10), || {
            Ok(self.child.try_wait()?)
        })?;
        let log = fs::read_to_string(self.scratch.join("log"))?;
        ensure!(status.success(), "lb decap ended with {status}: {log}");
        let counts: Value = serde_json::from_str(&fs::read_to_string(self.scratch.join("out"))?)?;
        Ok(counts["packets"].clone())
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
