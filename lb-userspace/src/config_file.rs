//! The configuration file on disk.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    config::{
        self, Config, ConfigError, Source,
        diff::{self, Diff},
    },
    state::desired::Desired,
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
    /// A directory without files for a configuration: a mistake rather than an empty one.
    #[error("{}: no file *.toml in this directory", directory.display())]
    NoFile {
        /// The directory.
        directory: PathBuf,
    },
    /// It does not make sense.
    #[error("{files}: {} {}", errors.len(), if errors.len() == 1 { "error" } else { "errors" })]
    Content {
        /// The files that have errors.
        files: String,
        /// Every error with its place.
        errors: Vec<ConfigError>,
    },
}

/// Names of files that an error lists; more are counted.
const NAMED: usize = 3;

impl FileError {
    /// Errors of the content of files.
    pub(crate) fn content(errors: Vec<ConfigError>) -> Self {
        let mut files: Vec<&str> = errors.iter().map(|error| error.file.as_str()).collect();
        files.dedup();
        let more = files.len().saturating_sub(NAMED);
        files.truncate(NAMED);
        let mut files = files.join(", ");
        if more > 0 {
            files.push_str(&format!(" and {more} more"));
        }
        Self::Content { files, errors }
    }
}

/// A file of a configuration with its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// Its path.
    pub file: String,
    /// Its content.
    pub text: String,
}

/// The files that `paths` name: of a directory, those whose names end in `.toml` and do not begin with a dot, in the order of their
/// names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |source| FileError::Read {
            file: path.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".toml") && !name.starts_with('.') {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            return Err(FileError::NoFile {
                directory: path.clone(),
            });
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// The files that `paths`, files and directories, name, with their content.
///
/// # Errors
/// One cannot be read.
pub fn texts(paths: &[PathBuf]) -> Result<Vec<Text>, FileError> {
    let read = |file: PathBuf| match fs::read_to_string(&file) {
        Ok(text) => Ok(Text {
            file: file.display().to_string(),
            text,
        }),
        Err(source) => Err(FileError::Read { file, source }),
    };
    files(paths)?.into_iter().map(read).collect()
}

/// Reads a configuration from files and directories.
///
/// # Errors
/// [`FileError`]
pub fn read(paths: &[PathBuf]) -> Result<Config, FileError> {
    parse(&texts(paths)?)
}

/// Reads a configuration of these files.
///
/// # Errors
/// [`FileError::Content`]
pub fn parse(texts: &[Text]) -> Result<Config, FileError> {
    let sources: Vec<Source<'_>> = texts
        .iter()
        .map(|Text { file, text }| Source { file, text })
        .collect();
    config::parse_all(&sources, &Desired::default()).map_err(FileError::content)
}

/// A refused file with the first thing that is wrong with it.
pub(crate) fn with_details(error: &FileError) -> String {
    match error {
        FileError::Content { errors, .. } => match errors.first() {
            Some(first) => format!("{error}, the first in line {}: {}", first.line, first.message),
            None => error.to_string(),
        },
        FileError::Read { .. } | FileError::NoFile { .. } => error.to_string(),
    }
}

/// The configuration on disk, files and directories, read again only when one has changed.
#[derive(Debug)]
pub struct ConfigFile {
    paths: Vec<PathBuf>,
    seen: Mutex<Option<(Vec<Stamp>, Content)>>,
}

/// The content of a configuration file, or why it cannot be used.
pub type Content = Arc<Result<Config, String>>;

/// Inode, size in bytes and time of the last change of a file, in nanoseconds.
type Stamp = (u64, u64, i128);

impl ConfigFile {
    /// The files and directories at `paths`; `None` if there are none.
    pub fn of(paths: &[PathBuf]) -> Option<Self> {
        (!paths.is_empty()).then(|| Self {
            paths: paths.to_vec(),
            seen: Mutex::default(),
        })
    }

    /// Where it is.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The same for messages.
    pub fn name(&self) -> String {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    /// Bytes of its files, as far as they can be found.
    pub fn length(&self) -> usize {
        let files = files(&self.paths).unwrap_or_default();
        let lengths = files.iter().filter_map(|file| fs::metadata(file).ok());
        let sum = lengths.map(|file| file.len()).sum::<u64>();
        usize::try_from(sum).unwrap_or(usize::MAX)
    }

    /// Its present content. Blocks while it is read.
    pub fn content(&self) -> Content {
        let stamp = |of: fs::Metadata| {
            let changed = i128::from(of.ctime()) * 1_000_000_000 + i128::from(of.ctime_nsec());
            (of.ino(), of.size(), changed)
        };
        // A file that comes to a directory changes the list.
        let stamps = files(&self.paths).ok().and_then(|files| {
            let each = files.iter().map(|file| fs::metadata(file).map(stamp).ok());
            each.collect::<Option<Vec<Stamp>>>()
        });
        // A panic elsewhere cannot leave it half written: it is assigned whole.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, content)) = seen.as_ref().filter(|(known, _)| Some(known) == stamps.as_ref()) {
            return Arc::clone(content);
        }
        let content = Arc::new(read(&self.paths).map_err(|error| with_details(&error)));
        *seen = stamps.map(|stamps| (stamps, Arc::clone(&content)));
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
        let applied = stored.applied.as_ref();
        Comparison {
            by_command: stored.by_commands(),
            pending: next,
            lists_services: applied.is_none_or(|applied| !applied.desired.services.is_empty()),
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
    /// Whether the file that was applied has services.
    lists_services: bool,
}

impl Comparison {
    /// Whether there is no difference.
    pub fn is_equal(&self) -> bool {
        self.by_command.is_empty() && self.pending.as_ref().is_ok_and(Diff::is_empty)
    }

    /// Whether the file is in force: as it is, or with services made by command where it lists none. An edited file that lists
    /// services would undo those made by command.
    pub fn is_in_force(&self) -> bool {
        let keeps_commands = !self.lists_services && self.by_command.only_adds_services();
        (self.by_command.is_empty() || keeps_commands) && self.pending.as_ref().is_ok_and(Diff::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::fields::Keys, state::testing};

    /// An alert about services that reloads keep would be ignored, and with it one about those that they remove.
    #[test]
    fn services_made_by_command_count_where_an_edited_file_would_undo_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        let web = testing::desired([testing::service("web", 1, &[("a", 10)])]);
        let more = testing::desired([
            testing::service("web", 1, &[("a", 10)]),
            testing::service("more", 2, &[("a", 10)]),
        ]);
        for (applied, desired, is_in_force) in [
            (Desired::default(), Desired::default(), true),
            (Desired::default(), web.clone(), true),
            (web.clone(), web.clone(), true),
            (web.clone(), more, false),
        ] {
            let applied = Config {
                desired: applied,
                ..Config::default()
            };
            fs::write(&path, config::export(&applied.desired, Keys::Hidden)).unwrap();
            let stored = Stored {
                applied: Some(Arc::new(applied)),
                ..Stored::by_command(desired)
            };
            let file = ConfigFile::of(std::slice::from_ref(&path)).unwrap();
            let compared = file.compare(&stored);
            assert_eq!(compared.is_in_force(), is_in_force, "{compared:?}");
        }
    }

    #[test]
    fn a_configuration_file_is_read_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        let file = ConfigFile::of(std::slice::from_ref(&path)).unwrap();
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
