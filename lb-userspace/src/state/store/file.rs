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
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::Store;
use crate::{
    config::{self, ConfigError, fields::Keys},
    state::{
        desired::{Desired, Revision},
        names::ServiceName,
        service::Service,
        shared::Shared,
    },
};

/// Version of the header and of what follows it.
const FORMAT: u32 = 1;
const MAGIC: &str = "lb-state";

const STATE_FILE: &str = "state.toml";
/// The state before the last change, for people to look at.
const PREVIOUS_FILE: &str = "state.previous.toml";
const NEW_FILE: &str = "state.new.toml";
const LOCK_FILE: &str = "lock";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or opened.
    #[error("state directory {} cannot be used", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon has the directory.
    #[error("state directory {} is in use by another daemon", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new state cannot be written; the old one is still there.
    #[error("{} cannot be written", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a state file of lb", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file was written by a later version.
    #[error("{} has format {format}, this version reads up to {FORMAT}", .file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// The file's format.
        format: u32,
    },
    /// The file is cut short or was changed by someone else.
    #[error("{} is damaged: its checksum is {actual:08x}, not {expected:08x}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The checksum in its header.
        expected: u32,
        /// The checksum of its content.
        actual: u32,
    },
    /// The file is whole, but this version does not understand it.
    #[error("{} cannot be understood: {}", .file.display(), .errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        errors: Vec<ConfigError>,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let move_away = |file: &Path, instead: &str| {
            let previous = file.with_file_name(PREVIOUS_FILE);
            format!(
                "{instead}, or move {} away to start empty (the state before the last change is in {})",
                file.display(),
                previous.display()
            )
        };
        match self {
            Self::Directory { dir, .. } => {
                format!(
                    "make {} writable for this user, or choose another one with --state-dir",
                    dir.display()
                )
            }
            Self::InUse { .. } => "stop the other daemon, or choose another one with --state-dir".to_owned(),
            Self::Read { file, .. } => format!("make {} readable for this user", file.display()),
            Self::Write { .. } => "look for a full or read-only disk; nothing was changed".to_owned(),
            Self::Foreign { .. } => {
                "choose another directory with --state-dir; nothing was overwritten".to_owned()
            }
            Self::Newer { file, .. } => {
                move_away(file, "start the version of lb that wrote it or a later one")
            }
            Self::Damaged { file, .. } => move_away(file, "restore it from a backup"),
            Self::Content { file, .. } => move_away(file, "start the version of lb that wrote it"),
        }
    }
}

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

/// The text of each service that was saved last.
#[derive(Debug, Default)]
struct Texts(BTreeMap<ServiceName, (Shared<Service>, Box<str>)>);

impl Texts {
    /// The file's content, behind its header.
    fn body(&mut self, desired: &Desired) -> String {
        self.0.retain(|name, _| desired.services.contains_key(name));
        config::export::export_by(desired, |text, service| {
            let known = self.0.get(&service.name).filter(|(of, _)| of.is_same(service));
            if let Some((_, known)) = known {
                text.push_str(known);
                return;
            }
            let new = config::export::service(service, Keys::Whole);
            text.push_str(&new);
            self.0.insert(service.name.clone(), (service.clone(), new.into()));
        })
    }
}

fn header(Revision(revision): Revision, body: &str) -> String {
    format!(
        "{MAGIC} {FORMAT} revision {revision} crc32 {:08x}\n",
        checksum(revision, body.as_bytes())
    )
}

/// Of the content together with the revision, which stands before it in the header.
fn checksum(revision: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn decode(file: PathBuf, bytes: &[u8]) -> Result<Desired, StoreError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let words: Vec<&str> = str::from_utf8(header).unwrap_or_default().split(' ').collect();
    let format = match words.as_slice() {
        [MAGIC, format, ..] => format.parse::<u32>().ok(),
        _ => None,
    };
    let Some(format) = format else {
        return Err(StoreError::Foreign { file });
    };
    if format > FORMAT {
        return Err(StoreError::Newer { file, format });
    }
    // A header of ours that is cut short cannot be checked: what it would have said is then as good as wrong.
    let numbers = match words.as_slice() {
        [_, _, "revision", revision, "crc32", sum] => {
            revision.parse().ok().zip(u32::from_str_radix(sum, 16).ok())
        }
        _ => None,
    };
    let (revision, expected) = numbers.unwrap_or_default();
    let actual = checksum(revision, body);
    if numbers.is_none() || actual != expected {
        return Err(StoreError::Damaged {
            file,
            expected,
            actual,
        });
    }
    let text = String::from_utf8_lossy(body);
    match config::parse(&text, &file.display().to_string()) {
        Ok(config) => Ok(Desired {
            revision: Revision(revision),
            ..config.desired
        }),
        Err(errors) => Err(StoreError::Content { file, errors }),
    }
}

#[cfg(test)]
mod tests;
