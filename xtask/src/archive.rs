//! Debian's archive, read without touching this machine: package lists, downloads and dependency resolution use an apt
//! state of their own in the cache. No root, no lock, no installation.

use std::{
    fs,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    apt, progress,
    workspace::{cache_dir, output_of, run},
};

/// An apt with this machine's sources and keys, but without its installed packages.
pub(crate) struct Archive {
    dir: PathBuf,
    /// A kind of processor whose packages it has besides this machine's, by Debian's word.
    foreign: Option<&'static str>,
    /// Held as long as this: others' downloads would be removed.
    _lock: File,
}

impl Archive {
    /// Fetches the package lists, once no other set-up has them open.
    ///
    /// # Errors
    /// When the cache cannot be written. A source that does not answer is a warning: the others may suffice.
    pub(crate) fn open() -> Result<Self> {
        Self::open_with(None)
    }

    /// As [`Archive::open`], with packages for another kind of processor, too: `NAME:arm64`.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub(crate) fn open_with(foreign: Option<&'static str>) -> Result<Self> {
        let dir = cache_dir()?.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let archive = Self {
            _lock: lock(&dir.join("lock"))?,
            dir,
            foreign,
        };
        // Empty, so that apt assumes no installed packages.
        fs::write(archive.dir.join("status"), "")?;
        let log = apt::log_file("package-lists")?;
        if let Err(error) = progress::step(
            "reading package lists",
            &log,
            archive.apt("apt-get").args(["-q", "update"]),
        ) {
            eprintln!("warning: {error:#}");
        }
        Ok(archive)
    }

    /// The first package that `package` depends on: for packages that only stand for the newest of their kind.
    pub(crate) fn dependency(&self, package: &str) -> Option<String> {
        let listed = output_of(self.apt("apt-cache").args(["depends", package]))?;
        let name = listed
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))?;
        Some(name.to_owned())
    }

    /// Unpacks packages, and everything they depend on, down to the C library, below `root`.
    ///
    /// # Errors
    /// When a package is unknown, or cannot be fetched or unpacked.
    pub(crate) fn unpack_with_dependencies(&self, packages: &[&str], root: &Path) -> Result<()> {
        let mut command = self.apt("apt-get");
        command
            .args([
                "-q",
                "-y",
                "--download-only",
                "--no-install-recommends",
                "install",
            ])
            .args(packages);
        self.unpack(packages, &mut command, root)
    }

    /// Fetches the packages of a whole system with these in it, as for a new machine, and gives the directory where they are.
    ///
    /// # Errors
    /// When a package is unknown, or cannot be fetched.
    pub(crate) fn fetch_system(&self, packages: &[&str]) -> Result<PathBuf> {
        let fetched = self.dir.join("archives");
        remove_packages(&fetched)?;
        let mut fetch = self.apt("apt-get");
        fetch
            .args([
                "-q",
                "-y",
                "--download-only",
                "--no-install-recommends",
                "install",
                "?essential",
            ])
            .args(packages);
        let step = format!("fetching a system with {} (once)", packages.join(" "));
        progress::step(&step, &apt::log_file("packages")?, &mut fetch)?;
        Ok(fetched)
    }

    /// Removes what was fetched.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn clean(&self) -> Result<()> {
        remove_packages(&self.dir.join("archives"))
    }

    /// Unpacks a package alone below `root`.
    ///
    /// # Errors
    /// As [`Archive::unpack_with_dependencies`].
    pub(crate) fn unpack_alone(&self, package: &str, root: &Path) -> Result<()> {
        let mut command = self.apt("apt-get");
        command
            .args(["-q", "download", package])
            .current_dir(self.dir.join("archives"));
        self.unpack(&[package], &mut command, root)
    }

    fn unpack(&self, packages: &[&str], fetch: &mut Command, root: &Path) -> Result<()> {
        let fetched = self.dir.join("archives");
        // Left by a run that was ended.
        remove_packages(&fetched)?;
        let step = format!("fetching {} (once)", packages.join(" "));
        progress::step(&step, &apt::log_file("packages")?, fetch)?;
        fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
        for package in package_files(&fetched)? {
            run(Command::new("dpkg").arg("-x").arg(package).arg(root))?;
        }
        remove_packages(&fetched)
    }

    /// A command of apt with its state in the cache.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let place = |option: &str, part: &str| format!("{option}={}", self.dir.join(part).display());
        for option in [
            place("Dir::State::lists", "lists"),
            place("Dir::State::status", "status"),
            place("Dir::State::extended_states", "extended_states"),
            place("Dir::Cache", ""),
            place("Dir::Cache::archives", "archives"),
            "Debug::NoLocking=1".to_owned(),
            // Its user for downloads cannot write here.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if let Some(foreign) = self.foreign {
            // The list in the configuration is empty where the machine has none but its own.
            let own = output_of(Command::new("dpkg").arg("--print-architecture")).unwrap_or_default();
            for arch in [own.as_str(), foreign] {
                command.args(["-o", &format!("APT::Architectures::={arch}")]);
            }
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Waits for a file that one process alone may hold.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another set-up, which holds {}", path.display())
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn package_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    Ok(files)
}

fn remove_packages(dir: &Path) -> Result<()> {
    for file in package_files(dir)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}
