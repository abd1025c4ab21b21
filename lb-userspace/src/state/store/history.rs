//! The latest states, each in a file under its revision: further names of the state files as they were saved.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{error::StoreError, format::decode};
use crate::state::{desired::Revision, stored::Stored};

/// States kept; the lowest revision goes first.
const KEPT: usize = 100;
/// Bytes that they take together, at most; the present one stays in any case.
const KEPT_BYTES: u64 = 256 << 20;
/// Directory within the state directory.
const DIRECTORY: &str = "history";
/// Ending of the names of the files.
const ENDING: &str = ".toml";

/// An earlier state, or the present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptState {
    /// Its revision.
    pub revision: Revision,
    /// When it was saved.
    pub at: SystemTime,
    /// Size of its file.
    pub bytes: u64,
}

/// The directory of earlier states.
#[derive(Debug)]
pub(super) struct History(PathBuf);

impl History {
    /// The history within a state directory.
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.join(DIRECTORY))
    }

    /// Keeps the state file `state` as the state of `revision`, and removes what is too much.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn keep(&self, state: &Path, revision: Revision) -> io::Result<()> {
        // States may hold keys: for this user alone, as the files.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let new = self.0.join("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Not every file system has hard links.
        fs::hard_link(state, &new).or_else(|_| fs::copy(state, &new).map(drop))?;
        fs::rename(&new, self.file(revision))?;
        let mut bytes = 0;
        for (at, kept) in self.list()?.into_iter().enumerate() {
            bytes += kept.bytes;
            if at >= KEPT || (at > 0 && bytes > KEPT_BYTES) {
                fs::remove_file(self.file(kept.revision))?;
            }
        }
        Ok(())
    }

    /// What is kept, the highest revision first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn list(&self) -> io::Result<Vec<KeptState>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let revision = name
                .to_str()
                .and_then(|name| name.strip_suffix(ENDING)?.parse().ok());
            if let Some(revision) = revision {
                let metadata = entry.metadata()?;
                kept.push(KeptState {
                    revision: Revision(revision),
                    at: metadata.modified()?,
                    bytes: metadata.len(),
                });
            }
        }
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.revision));
        Ok(kept)
    }

    /// The state of `revision`; `None` if it is not kept.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or comes from a later version.
    pub(super) fn read(&self, revision: Revision) -> Result<Option<Stored>, StoreError> {
        let file = self.file(revision);
        match fs::read(&file) {
            Ok(bytes) => decode(file, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { file, source }),
        }
    }

    fn file(&self, Revision(revision): Revision) -> PathBuf {
        self.0.join(format!("{revision}{ENDING}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{desired::Desired, store::FileStore, testing};

    fn state(revision: u64) -> Stored {
        let weight = u16::try_from(revision).unwrap();
        let desired = testing::desired([testing::service("web", 1, &[("a", weight)])]);
        Stored::by_command(Desired {
            revision: Revision(revision),
            ..desired
        })
    }

    #[test]
    fn the_latest_states_are_kept_and_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        assert_eq!(store.history.list().unwrap(), []);
        let last = KEPT as u64 + 5;
        for revision in 1..=last {
            store.save(&state(revision)).unwrap();
        }
        let kept: Vec<u64> = store
            .history
            .list()
            .unwrap()
            .iter()
            .map(|kept| kept.revision.0)
            .collect();
        assert_eq!(kept, (6..=last).rev().collect::<Vec<_>>());
        // Saving again, as after a change that could not be programmed, replaces its file.
        let other = Stored::by_command(Desired {
            revision: Revision(last),
            ..(*state(7).desired).clone()
        });
        store.save(&other).unwrap();
        assert_eq!(store.history.read(Revision(last)).unwrap(), Some(other));
        assert_eq!(store.history.read(Revision(50)).unwrap(), Some(state(50)));
        assert_eq!(store.history.read(Revision(5)).unwrap(), None);
    }

    #[test]
    fn a_damaged_state_is_refused_and_no_obstacle_to_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.save(&state(1)).unwrap();
        store.save(&state(2)).unwrap();
        let file = dir.path().join(DIRECTORY).join("1.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("weight = 1", "weight = 9")).unwrap();
        let error = store.history.read(Revision(1)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        // A file in the directory's place.
        fs::remove_dir_all(dir.path().join(DIRECTORY)).unwrap();
        fs::write(dir.path().join(DIRECTORY), "").unwrap();
        store.save(&state(3)).unwrap();
        assert_eq!(store.load().unwrap(), Some(state(3)));
    }
}
