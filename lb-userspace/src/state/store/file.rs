//! The store in a directory.
//!
//! A state is written to a new file, synced, and renamed over the old one; the directory is synced, too. So at any time
//! the file is the whole old state or the whole new one. The first line has format, revision and checksum:
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
    time::SystemTime,
};

use super::{
    error::StoreError,
    format::{Texts, decode, header},
    history::History,
    journal::Journal,
};
use crate::{
    config::values::rfc3339,
    state::{
        store::{keep::StoreProblem, names::PREVIOUS_FILE},
        stored::Stored,
    },
};

const STATE_FILE: &str = "state.toml";
const NEW_FILE: &str = "state.new.toml";
const LOCK_FILE: &str = "lock";
/// Prefix of the names of state files that a start could not use.
const SET_ASIDE: &str = "state.set-aside-";

/// The desired state in a directory that belongs to this process alone.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    /// The text of each service in the file, so that a change of one service formats only that one. Locked while a state is written:
    /// one after the other.
    texts: Mutex<Texts>,
    pub(super) journal: Journal,
    pub(super) history: History,
    /// Locked as long as it is open; the kernel lets go of it when the process ends, however that happens.
    lock: Option<File>,
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
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join(LOCK_FILE))
            .map_err(unusable)?;
        Self::locked(dir, Some(lock))
    }

    /// Opens a directory that can only be read; `None` if there is none. It is not locked, since nothing is written to
    /// it, and so that it can be unmounted.
    ///
    /// # Errors
    /// Another process has it.
    pub fn open_to_read(dir: &Path) -> Result<Option<Self>, StoreError> {
        if !dir.is_dir() {
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        let lock = options.read(true).custom_flags(libc::O_NOFOLLOW);
        let store = Self::locked(dir, lock.open(dir.join(LOCK_FILE)).ok())?;
        Ok(Some(Self { lock: None, ..store }))
    }

    /// Has states wait to be written.
    #[cfg(test)]
    pub(super) fn hold(&self) -> std::sync::MutexGuard<'_, Texts> {
        self.texts.lock().unwrap()
    }

    /// Whether it is this process's alone.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    fn locked(dir: &Path, lock: Option<File>) -> Result<Self, StoreError> {
        match lock.as_ref().map_or(Ok(()), File::try_lock) {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                texts: Mutex::default(),
                journal: Journal::new(dir),
                history: History::new(dir),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(StoreError::Directory {
                dir: dir.to_owned(),
                source,
            }),
        }
    }

    /// As [`super::keep::Store::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load(&self) -> Result<Option<Stored>, StoreError> {
        let path = self.dir.join(STATE_FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => decode(path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { file: path, source }),
        }
    }

    /// As [`super::keep::Store::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let body = texts.body(stored);
        self.write(&header(stored.desired.revision, &body), &body)
            .map_err(|source| StoreError::Write {
                file: self.dir.join(STATE_FILE),
                source,
            })?;
        // The change itself is safe; only a way back to it would be missing.
        if let Err(error) = self
            .history
            .keep(&self.dir.join(STATE_FILE), stored.desired.revision)
        {
            tracing::warn!(%error, "cannot keep the state for `lb rollback`");
        }
        Ok(())
    }

    /// As [`super::keep::Store::set_aside`].
    ///
    /// # Errors
    /// As there.
    pub fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let file = self.dir.join(STATE_FILE);
        let name = format!("{SET_ASIDE}{}.toml", rfc3339(SystemTime::now()).replace(':', "-"));
        let aside = self.dir.join(name);
        match fs::rename(&file, &aside) {
            Ok(()) => Ok(aside),
            Err(source) => Err(StoreError::Write { file, source }),
        }
    }

    /// State files that were set aside and not removed yet.
    pub fn set_aside_in(dir: &Path) -> Vec<StoreProblem> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let files = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(SET_ASIDE))
        });
        files
            .map(|entry| StoreProblem {
                message: format!(
                    "the stored state could not be used and was set aside: {}",
                    entry.path().display()
                ),
                hint: format!(
                    "changes made by command that it holds are not in force: compare it with `lb export`, then remove it \
                     (the state before its last change is in {})",
                    dir.join(PREVIOUS_FILE).display()
                ),
            })
            .collect()
    }

    /// Writes a state, which may hold keys: for this user alone.
    fn write(&self, header: &str, body: &str) -> io::Result<()> {
        let [state, previous, new] = [STATE_FILE, PREVIOUS_FILE, NEW_FILE].map(|name| self.dir.join(name));
        remove_if_there(&new)?;
        let written = write_new(&new, &[header, body]);
        let replaced = written.and_then(|()| {
            remove_if_there(&previous)?;
            // A second name for the old state, so that there is no moment without one in its place.
            match fs::hard_link(&state, &previous) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Not every file system has hard links.
                Err(_) => write_new(&previous, &[&fs::read_to_string(&state)?])?,
                Ok(()) => {}
            }
            fs::rename(&new, &state)
        });
        if let Err(error) = replaced {
            // Frees the space on a full disk; the first error names any other cause.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        File::open(&self.dir)?.sync_all()
    }
}

/// Writes and syncs a file that is not there yet, for this user alone. A link in its place is not followed.
fn write_new(file: &Path, parts: &[&str]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    for part in parts {
        file.write_all(part.as_bytes())?;
    }
    file.sync_all()
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
