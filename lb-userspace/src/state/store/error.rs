//! Why the store cannot be used, with remedies.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::names::{FORMAT, PREVIOUS_FILE};
use crate::config::ConfigError;

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
        /// Its errors.
        errors: Vec<ConfigError>,
    },
}

impl StoreError {
    /// The remedy.
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
