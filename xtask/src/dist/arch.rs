//! Kinds of processors that releases are for.

use anyhow::{Context, Result};

/// A kind of processor, by its word in Rust's targets, RPM and names of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// This machine's.
    ///
    /// # Errors
    /// On a machine of another kind.
    pub(super) fn native() -> Result<Self> {
        let word = std::env::consts::ARCH;
        let native = Self::ALL.into_iter().find(|arch| arch.word() == word);
        native.with_context(|| format!("releases are for x86_64 and aarch64, and this machine is {word}"))
    }

    /// Its usual word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Its word in Debian's packages and in images of containers.
    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's name for Linux on it, with the GNU C library.
    pub(super) fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.word())
    }
}
