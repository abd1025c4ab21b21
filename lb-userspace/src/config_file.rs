//! The configuration file on disk.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    config::{
        self, Config, ConfigError,
        diff::{self, Diff},
    },
    state::stored::{FileOrder, Stored, content_by_file},
};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not make sense.
    #[error("{}: {} {}", file.display(), errors.len(), if errors.len() == 1 { "error" } else { "errors" })]
    Content {
        /// The file.
        file: PathBuf,
        /// Every error with its place.
        errors: Vec<ConfigError>,
    },
}

/// Reads a configuration file.
///
/// # Errors
/// [`FileError`]
pub fn read(file: &Path) -> Result<Config, FileError> {
    let text = fs::read_to_string(file).map_err(|source| FileError::Read {
        file: file.to_owned(),
        source,
    })?;
    config::parse(&text, &file.display().to_string()).map_err(|errors| FileError::Content {
        file: file.to_owned(),
        errors,
    })
}

/// A refused file with the first thing that is wrong with it.
pub(crate) fn with_details(error: &FileError) -> String {
    match error {
        FileError::Content { errors, .. } => match errors.first() {
            Some(first) => format!("{error}, the first in line {}: {}", first.line, first.message),
            None => error.to_string(),
        },
        FileError::Read { .. } => error.to_string(),
    }
}

/// The configuration file on disk, read again only when it has changed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    seen: Mutex<Option<(Stamp, Content)>>,
}

/// The content of a configuration file, or why it cannot be used.
pub type Content = Arc<Result<Config, String>>;

/// Inode, size in bytes and time of the last change of a file, in nanoseconds.
type Stamp = (u64, u64, i128);

impl ConfigFile {
    /// The file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Mutex::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its present content. Blocks while it is read.
    pub fn content(&self) -> Content {
        let stamp = |of: fs::Metadata| {
            let changed = i128::from(of.ctime()) * 1_000_000_000 + i128::from(of.ctime_nsec());
            (of.ino(), of.size(), changed)
        };
        let stamp = fs::metadata(&self.path).map(stamp).ok();
        // A panic elsewhere cannot leave it half written: it is assigned whole.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, content)) = seen.as_ref().filter(|(known, _)| Some(*known) == stamp) {
            return Arc::clone(content);
        }
        let content = Arc::new(read(&self.path).map_err(|error| with_details(&error)));
        *seen = stamp.map(|stamp| (stamp, Arc::clone(&content)));
        content
    }

    /// How the state in force differs from the file. Blocks while a changed file is read.
    pub fn compare(&self, stored: &Stored) -> Comparison {
        let next = match self.content().as_ref() {
            Ok(file) => content_by_file(stored, &file.desired, FileOrder::Reload, false)
                .map(|next| diff::diff(&stored.desired, &next))
                .map_err(|refused| refused.to_string()),
            Err(why) => Err(why.clone()),
        };
        Comparison {
            by_command: stored.by_commands(),
            pending: next,
        }
    }
}

/// How the state in force differs from the configuration file.
#[derive(Debug)]
pub struct Comparison {
    /// Changes made by command since the file was applied.
    pub by_command: Diff,
    /// Changes that a reload would make, or why the file cannot be used.
    pub pending: Result<Diff, String>,
}

impl Comparison {
    /// Whether there is no difference.
    pub fn is_equal(&self) -> bool {
        self.by_command.is_empty() && self.pending.as_ref().is_ok_and(Diff::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_file_is_read_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        let file = ConfigFile::new(path.clone());
        assert!(
            file.content()
                .as_ref()
                .as_ref()
                .is_err_and(|why| why.contains("lb.toml"))
        );
        fs::write(&path, "[lb]\n").unwrap();
        let first = file.content();
        assert!(first.is_ok() && Arc::ptr_eq(&first, &file.content()));
        fs::write(&path, "[lb]\nmetrics = 7\n").unwrap();
        assert!(file.content().is_err());
        fs::remove_file(&path).unwrap();
        assert!(file.content().is_err());
    }
}
