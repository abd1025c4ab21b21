//! Private directories: state, sockets, logs and a bpffs mount of one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::netns::{PREFIX, owner_is_dead};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that is removed with its mounts when dropped. Removing a bpffs mount frees the pins in it, and with them
/// programs and links without other references.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new, empty directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file inside and gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the remains of dead test processes.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(owner_is_dead) {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|mount| Path::new(mount).starts_with(path));
    // Later mounts may lie in earlier ones.
    for mount in inside.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").arg("-l").arg(mount).status();
    }
    let _ = fs::remove_dir_all(path);
}
