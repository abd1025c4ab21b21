//! Files of the state directory: the state, and the journal of what checks know.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lb_userspace::state::store::{LenientStore, Store};
use tempfile::TempDir;

/// A directory in memory: each input is written and synced.
const MEMORY: &str = "/dev/shm";
const REVISION: u64 = 7;

thread_local! {
    static DIR: Option<TempDir> = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).ok();
}

pub(crate) fn check(bytes: &[u8]) {
    let dir: Option<PathBuf> = DIR.with(|dir| dir.as_ref().map(|dir| dir.path().to_owned()));
    let Some(dir) = dir else {
        panic!("no directory for temporary files");
    };
    if let Err(error) = read(&dir, bytes) {
        panic!("{}: {error}", dir.display());
    }
}

/// Reads the bytes as a state under a header that fits, and as a journal. What was read is saved, and read again as the same.
fn read(dir: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&REVISION.to_le_bytes());
    sum.update(bytes);
    let mut state = format!("lb-state 1 revision {REVISION} crc32 {:08x}\n", sum.finalize()).into_bytes();
    state.extend(bytes);
    fs::write(dir.join("state.toml"), state)?;
    fs::write(dir.join("journal"), bytes)?;
    let store = match LenientStore::open(dir, false) {
        Ok(store) => store,
        Err(error) => panic!("{error}"),
    };
    let records = store.recall();
    store.forget_all_but(&records);
    assert_eq!(store.recall(), records, "the journal comes back as another one");
    let Ok(Some(stored)) = store.load() else {
        return Ok(());
    };
    let again = store.save(&stored).and_then(|()| store.load());
    match again {
        Ok(Some(again)) => {
            assert!(
                again.desired == stored.desired,
                "the state comes back as another one"
            );
            assert!(
                again.applied == stored.applied,
                "the applied file comes back as another one"
            );
            assert!(again.by == stored.by, "the author comes back as another one");
        }
        Ok(None) => panic!("the state does not come back"),
        Err(error) => panic!("the state does not come back: {error}"),
    }
    Ok(())
}
