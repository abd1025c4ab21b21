//! The store in a directory.
//!
//! A state is written beside the old one, synced, and moved into its place; the directory is synced, too. So at any
//! time the file is the old state or the new one, whole. A first line says what it is and carries a checksum:
//!
//! ```text
//! lb-state 1 revision 7 crc32 89abcdef
//! [lb]
//! ...
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    Store,
    error::StoreError,
    format::{Texts, decode, header},
};
use crate::state::desired::Desired;

const STATE_FILE: &str = "state.toml";
/// The state before the last change, for people to look at.
pub(super) const PREVIOUS_FILE: &str = "state.previous.toml";
const NEW_FILE: &str = "state.new.toml";
const LOCK_FILE: &str = "lock";

/// The desired state in a directory that belongs to this process alone.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    /// What services look like in the file, so that a change of one costs writing that one.
    texts: Mutex<Texts>,
    /// Locked as long as it is open; the kernel lets go of it when the process ends, however that happens.
    _lock: File,
}

impl FileStore {
    /// Makes the directory if it is not there (mode 0750), and locks it.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory {
            dir: dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(unusable)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(dir.join(LOCK_FILE))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                texts: Mutex::default(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Writes a state, which may hold keys: for this user alone.
    fn write(&self, header: &str, body: &str) -> io::Result<()> {
        let [state, previous, new] = [STATE_FILE, PREVIOUS_FILE, NEW_FILE].map(|name| self.dir.join(name));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(header.as_bytes())?;
        file.write_all(body.as_bytes())?;
        file.sync_all()?;
        remove_if_there(&previous)?;
        // A second name for the old state, so that there is no moment without one in its place.
        match fs::hard_link(&state, &previous) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not every file system has hard links.
            Err(_) => drop(fs::copy(&state, &previous)?),
            Ok(()) => {}
        }
        fs::rename(&new, &state)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Store for FileStore {
    fn load(&self) -> Result<Option<Desired>, StoreError> {
        let path = self.dir.join(STATE_FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => decode(path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { file: path, source }),
        }
    }

    fn save(&self, desired: &Desired) -> Result<(), StoreError> {
        let body = self
            .texts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .body(desired);
        self.write(&header(desired.revision, &body), &body)
            .map_err(|source| StoreError::Write {
                file: self.dir.join(STATE_FILE),
                source,
            })
    }
}

#[cfg(test)]
mod tests;
