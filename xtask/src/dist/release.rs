//! What all forms of a release need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::arch::Arch;
use crate::workspace::output_of;

/// The file with the checksums of the others.
pub(super) const SUMS: &str = "SHA256SUMS";

/// All that forms of a release have in common.
pub(super) struct Release {
    /// Version of the packages.
    pub(super) version: String,
    /// Kind of processor.
    pub(super) arch: Arch,
    /// Runs its programs, if this machine cannot.
    pub(super) emulator: Option<PathBuf>,
    /// The program that they bring.
    pub(super) binary: PathBuf,
    /// Where they go.
    pub(super) out: PathBuf,
    /// Where they are put together; removed at the end.
    pub(super) work: PathBuf,
    /// Whether packages are made quickly instead of small.
    pub(super) quick: bool,
}

impl Release {
    /// A command that runs its program here.
    pub(super) fn run(&self) -> Command {
        match &self.emulator {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        }
    }
}

/// An empty directory at `dir`.
pub(super) fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let output = output_of(Command::new("sha256sum").arg(file)).context("cannot run sha256sum")?;
    let digits = output.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(digits.len() == 64, "sha256sum of {}: {output}", file.display());
    Ok(digits)
}

/// Copies a file, and makes the directories above it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("a file without a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
