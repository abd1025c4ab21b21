//! A store that does not stop a start: where its directory cannot be written, the state is kept in memory until it can.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    chain::chain,
    state::{
        desired::Revision,
        store::{
            error::StoreError,
            file::FileStore,
            history::KeptState,
            journal::Record,
            keep::{Store, StoreProblem},
        },
        stored::Stored,
    },
};

/// A directory if it can be used, else memory. Each save looks again.
#[derive(Debug)]
pub struct LenientStore {
    dir: PathBuf,
    /// `None` while the directory cannot be opened. Not locked while files are written: records do not wait for a state.
    files: Mutex<Option<Arc<FileStore>>>,
    /// Why the state of the start could not be saved. Until it can, changes are kept in memory alone; after that, a change
    /// that cannot be saved is refused.
    failure: Mutex<Option<StoreError>>,
    /// Why the latest record could not be written to the journal.
    forgetful: Mutex<Option<String>>,
}

impl LenientStore {
    /// Opens the directory as [`FileStore::open`] does, else read-only, else continues without it if the start
    /// `has_file`.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: two daemons must not share a state. Without a file: nothing can be read.
    pub fn open(dir: &Path, has_file: bool) -> Result<Self, StoreError> {
        let (files, failure) = match FileStore::open(dir) {
            Ok(files) => (Some(files), None),
            // Not read either: if the other one ends at this moment, what this one reads is not what it would keep.
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            Err(error) => match FileStore::open_to_read(dir)? {
                None if !has_file => return Err(error),
                files => (files, Some(error)),
            },
        };
        Ok(Self {
            dir: dir.to_owned(),
            files: Mutex::new(files.map(Arc::new)),
            failure: Mutex::new(failure),
            forgetful: Mutex::default(),
        })
    }

    /// As [`Store::save`], for the first state of a start, which must not fail because of a read-only disk: then [`Store::unsaved`]
    /// reports it.
    pub fn save_first(&self, stored: &Stored) {
        if let Err(error) = self.save(stored) {
            *self.failure() = Some(error);
        }
    }

    fn files(&self) -> Option<Arc<FileStore>> {
        self.lock_files().clone()
    }

    fn lock_files(&self) -> MutexGuard<'_, Option<Arc<FileStore>>> {
        // Each change of it is one assignment.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<StoreError>> {
        // Each change of it is one assignment.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the journal, if there is one, and records the result.
    fn note(&self, write: impl FnOnce(&FileStore) -> io::Result<()>) {
        let written = self.files().map_or(Ok(()), |files| write(&files));
        let mut forgetful = self.forgetful.lock().unwrap_or_else(PoisonError::into_inner);
        let failed_before = forgetful.is_some();
        *forgetful = written.err().map(|error| error.to_string());
        if let (Some(error), false) = (&*forgetful, failed_before) {
            tracing::warn!(error, "cannot store health states");
        }
    }

    /// Saves, after opening the directory again where that failed before.
    fn try_save(&self, stored: &Stored, failed_before: bool) -> Result<(), StoreError> {
        let mut files = self.files();
        if failed_before && !files.as_ref().is_some_and(|files| files.is_locked()) {
            let opened = Arc::new(FileStore::open(&self.dir)?);
            // Its records are older than those that were not written: no records are better.
            let _ = opened.journal.rewrite(&[]);
            *self.lock_files() = Some(Arc::clone(&opened));
            files = Some(opened);
        }
        files.map_or(Ok(()), |files| files.save(stored))
    }
}

impl Store for LenientStore {
    fn load(&self) -> Result<Option<Stored>, StoreError> {
        self.files().map_or(Ok(None), |files| files.load())
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        let failed_before = self.failure().is_some();
        match self.try_save(stored, failed_before) {
            Ok(()) => *self.failure() = None,
            Err(error) if failed_before => *self.failure() = Some(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let files = self.files();
        files.map_or(Ok(self.dir.clone()), |files| files.set_aside())
    }

    fn recall(&self) -> Vec<Record> {
        let recalled = self.files().map(|files| files.journal.recall());
        match recalled {
            Some(Ok((records, damaged))) => {
                if damaged > 0 {
                    tracing::warn!(lines = damaged, "skipped damaged lines of the journal");
                }
                records
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot read stored health states");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn remember(&self, records: &[Record]) {
        if !records.is_empty() {
            self.note(|files| files.journal.append(records));
        }
    }

    fn forget_all_but(&self, records: &[Record]) {
        self.note(|files| files.journal.rewrite(records));
    }

    fn history(&self) -> io::Result<Vec<KeptState>> {
        let files = self.files();
        files.map_or(Ok(Vec::new()), |files| files.history.list())
    }

    fn past(&self, revision: Revision) -> Result<Option<Stored>, StoreError> {
        let files = self.files();
        files.map_or(Ok(None), |files| files.history.read(revision))
    }

    fn unsaved(&self) -> Option<StoreProblem> {
        self.failure().as_ref().map(|error| StoreProblem {
            message: format!(
                "the state is not saved, a restart loses changes made by command: {}",
                chain(error)
            ),
            hint: error.hint(),
        })
    }

    fn problems(&self) -> Vec<StoreProblem> {
        let set_aside = FileStore::set_aside_in(&self.dir);
        let forgetful = self.forgetful.lock().unwrap_or_else(PoisonError::into_inner);
        let forgetful = forgetful.as_ref().map(|error| StoreProblem {
            message: format!("health states are not stored, a restart loses them: {error}"),
            hint: format!("look at the disk of {}", self.dir.display()),
        });
        // If nothing is saved, one problem suffices.
        let unsaved = self.unsaved().or(forgetful);
        unsaved.into_iter().chain(set_aside).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc, thread};

    use super::*;
    use crate::state::testing;

    fn state(weight: u16) -> Stored {
        Stored::by_command(testing::desired([testing::service("web", 1, &[("a", weight)])]))
    }

    #[test]
    fn a_directory_whose_daemon_ends_just_now_is_taken_or_refused_but_not_read() {
        const ENDS: u32 = 500;
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..ENDS {
            let first = FileStore::open(dir.path()).unwrap();
            let end = thread::spawn(move || drop(first));
            let store = loop {
                match LenientStore::open(dir.path(), true) {
                    Err(StoreError::InUse { .. }) => {}
                    store => break store.unwrap(),
                }
            };
            assert!(store.files().unwrap().is_locked());
            end.join().unwrap();
        }
    }

    /// A file in the directory's place simulates a disk that cannot be used; root ignores file modes.
    #[test]
    fn unusable_directory_is_used_once_it_works() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        fs::write(&dir, "").unwrap();
        LenientStore::open(&dir, false).expect_err("there is nothing to forward");
        let store: Arc<dyn Store> = Arc::new(LenientStore::open(&dir, true).unwrap());
        assert_eq!(store.load().unwrap(), None);
        store.save(&state(1)).unwrap();
        let problem = store.unsaved().unwrap();
        assert!(problem.message.contains(dir.to_str().unwrap()), "{problem:?}");
        assert_eq!(store.problems(), [problem]);
        fs::remove_file(&dir).unwrap();
        store.save(&state(2)).unwrap();
        assert_eq!((store.unsaved(), store.problems()), (None, Vec::new()));
        assert_eq!(store.load().unwrap(), Some(state(2)));

        fs::remove_dir_all(&dir).unwrap();
        store
            .save(&state(3))
            .expect_err("a saved state is not dropped silently");
        assert_eq!(store.unsaved(), None);
    }

    /// Results of checks since then are newer than the directory's records.
    #[test]
    fn health_records_of_a_returning_directory_are_ignored() {
        let parent = tempfile::tempdir().unwrap();
        let [dir, away] = ["state", "away"].map(|name| parent.path().join(name));
        let known = [Record::Report {
            target: "10.0.0.1:80".parse().unwrap(),
            down: None,
            at: 1,
            ttl: 1,
        }];
        let first = LenientStore::open(&dir, true).unwrap();
        first.remember(&known);
        assert_eq!(first.recall(), known);
        drop(first);
        fs::rename(&dir, &away).unwrap();
        fs::write(&dir, "").unwrap();
        let store = LenientStore::open(&dir, true).unwrap();
        fs::remove_file(&dir).unwrap();
        fs::rename(&away, &dir).unwrap();
        store.save(&state(1)).unwrap();
        assert_eq!(store.recall(), []);
    }

    /// Each health state would otherwise wait for the disk to write all that is desired.
    #[test]
    fn records_do_not_wait_for_a_state_that_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(LenientStore::open(dir.path(), true).unwrap());
        let files = store.files().unwrap();
        let held = files.hold();
        let saving = Arc::clone(&store);
        let saved = std::thread::spawn(move || saving.save(&state(1)));
        let (done, remembered) = std::sync::mpsc::channel();
        let writing = Arc::clone(&store);
        std::thread::spawn(move || {
            writing.remember(&[Record::Report {
                target: "10.0.0.1:80".parse().unwrap(),
                down: None,
                at: 1,
                ttl: 1,
            }]);
            done.send(()).unwrap();
        });
        let within = std::time::Duration::from_secs(30);
        remembered.recv_timeout(within).expect("it does not wait");
        assert!(!saved.is_finished());
        drop(held);
        saved.join().unwrap().unwrap();
        assert_eq!(store.load().unwrap(), Some(state(1)));
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_a_problem_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let store = LenientStore::open(dir.path(), true).unwrap();
        let in_the_way = dir.path().join("journal");
        fs::create_dir(&in_the_way).unwrap();
        store.forget_all_but(&[]);
        let problems = store.problems();
        assert!(
            problems.len() == 1 && problems[0].message.contains("health states are not stored"),
            "{problems:?}"
        );
        fs::remove_dir(&in_the_way).unwrap();
        store.forget_all_but(&[]);
        assert_eq!(store.problems(), []);
    }

    #[test]
    fn start_continues_if_its_first_state_cannot_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = LenientStore::open(dir.path(), true).unwrap();
        let in_the_way = dir.path().join("state.new.toml");
        fs::create_dir(&in_the_way).unwrap();
        store.save_first(&state(1));
        assert!(store.unsaved().is_some());
        store.save(&state(2)).unwrap();
        fs::remove_dir(&in_the_way).unwrap();
        store.save(&state(3)).unwrap();
        assert_eq!(store.unsaved(), None);
        assert_eq!(store.load().unwrap(), Some(state(3)));
    }

    #[test]
    fn a_directory_in_use_is_an_error_also_with_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let _first = FileStore::open(dir.path()).unwrap();
        let error = LenientStore::open(dir.path(), true).expect_err("in use");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    }
}
