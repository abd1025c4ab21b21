//! Kernels of Debian 12, unpacked into the cache.

use std::{fmt, fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{archive::Archive, workspace::cache_dir};

/// A kernel that tests run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    /// The oldest that `lb` promises to run on.
    Linux61,
    /// The one of the next release of Debian.
    Linux612,
}

impl Kernel {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Linux61, Self::Linux612];

    /// The package that stands for the newest one of its kind.
    const fn package(self) -> &'static str {
        match self {
            Self::Linux61 => "linux-image-cloud-amd64",
            Self::Linux612 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// Where it is in the cache.
    pub(super) fn dir(self) -> Result<PathBuf> {
        let name = match self {
            Self::Linux61 => "kernel",
            Self::Linux612 => "kernel-6.12",
        };
        Ok(cache_dir()?.join(name))
    }

    /// Sees to it that it is there.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub(super) fn ensure(self) -> Result<()> {
        if self.version().is_ok() {
            return Ok(());
        }
        let archive = Archive::open()?;
        let package = self.package();
        let newest = archive.dependency(package).with_context(|| {
            format!("no package {package} here: the sources of Debian 12 and of its security updates have it")
        })?;
        archive
            .unpack_alone(&newest, &self.dir()?)
            .with_context(|| format!("fetching {self}"))
    }

    /// Its version, as modules and the kernel itself name it.
    pub(super) fn version(self) -> Result<String> {
        let boot = self.dir()?.join("boot");
        for entry in fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))? {
            if let Some(version) = entry?.file_name().to_string_lossy().strip_prefix("vmlinuz-") {
                return Ok(version.to_owned());
            }
        }
        bail!("no kernel in {}", boot.display())
    }

    /// The kernel itself.
    pub(super) fn file(self) -> Result<PathBuf> {
        Ok(self
            .dir()?
            .join("boot")
            .join(format!("vmlinuz-{}", self.version()?)))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux61 => "Linux 6.1",
            Self::Linux612 => "Linux 6.12",
        })
    }
}
