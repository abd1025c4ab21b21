//! The time stamp of everything in a release: `SOURCE_DATE_EPOCH`, else the time of the commit.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use crate::workspace::{Workspace, output_of};

/// The variable that build tools take their time from.
pub(super) const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Seconds since 1970.
pub(super) struct Epoch(u64);

impl Epoch {
    /// Finds it; 0 outside of a checkout.
    ///
    /// # Errors
    /// When the variable holds no number.
    pub(super) fn find(workspace: &Workspace) -> Result<Self> {
        if let Ok(text) = env::var(VARIABLE) {
            let seconds = text
                .parse()
                .with_context(|| format!("{VARIABLE} is {text:?}: no seconds"))?;
            return Ok(Self(seconds));
        }
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%ct"])
            .current_dir(&workspace.root);
        let commit = output_of(&mut git).and_then(|text| text.parse().ok());
        Ok(Self(commit.unwrap_or_default()))
    }

    /// As the variable holds it.
    pub(super) fn seconds(&self) -> String {
        self.0.to_string()
    }

    /// As `date` writes it in a format.
    ///
    /// # Errors
    /// When `date` cannot be run.
    pub(super) fn formatted(&self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C")
            .args(["--utc", "--date", &format!("@{}", self.0), format]);
        output_of(&mut date).context("cannot run date")
    }

    /// Gives all below `dir` this time and the usual modes, whatever the umask: 755 for directories and programs, else 644.
    ///
    /// # Errors
    /// When one cannot be changed.
    pub(super) fn stamp(&self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                self.stamp(&path)?;
                continue;
            }
            let mode = fs::metadata(&path)?.permissions().mode();
            self.set(&path, if mode & 0o100 == 0 { 0o644 } else { 0o755 })?;
        }
        self.set(dir, 0o755)
    }

    fn set(&self, path: &Path, mode: u32) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.0);
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::File::open(path))
            .and_then(|file| file.set_modified(time))
            .with_context(|| format!("cannot stamp {}", path.display()))
    }

    /// A command of `tar` for a reproducible archive: order, owner and times do not depend on the packing user and machine.
    pub(super) fn tar(&self) -> Command {
        let mut tar = Command::new("tar");
        tar.args([
            "--create",
            "--format=ustar",
            "--sort=name",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
        ])
        .arg(format!("--mtime=@{}", self.0));
        tar
    }
}
