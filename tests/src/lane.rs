//! How root lanes share the machine: they fail without root, and heavy ones run alone.
//!
//! The lock is a file, so it also holds between test processes. Light tests share it, and those that measure time or
//! fill the CPUs take it for themselves.

use std::{fs::File, sync::Once};

use anyhow::{Context, Result, ensure};

use crate::{netns, scratch};

/// Permission to run; dropping it lets others run.
pub struct Lane {
    _lock: File,
}

impl Lane {
    /// Runs beside other light tests.
    ///
    /// # Errors
    /// Without root, or where the lock file cannot be made.
    pub fn shared() -> Result<Self> {
        let lock = open()?;
        lock.lock_shared().context("lock the lane")?;
        Ok(Self { _lock: lock })
    }

    /// Runs alone: waits until every other test has ended.
    ///
    /// # Errors
    /// As [`Lane::shared`].
    pub fn alone() -> Result<Self> {
        let lock = open()?;
        lock.lock().context("lock the lane")?;
        Ok(Self { _lock: lock })
    }
}

fn open() -> Result<File> {
    // SAFETY: geteuid takes no arguments and cannot fail.
    let euid = unsafe { libc::geteuid() };
    ensure!(
        euid == 0,
        "this lane needs root (network namespaces, BPF): run it as root, or through `cargo xtask test`"
    );
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| {
        netns::sweep();
        scratch::sweep();
    });
    let path = std::env::temp_dir().join("lbt.lane.lock");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}
