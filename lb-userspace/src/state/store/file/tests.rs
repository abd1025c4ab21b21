//! Crashes that a state file survives, and files that the store refuses.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proptest::prelude::*;

use super::*;
use crate::{
    author::Author,
    config::{self, Config, fields::Keys},
    health::settings::{CheckKind, ExecCheck},
    state::{
        desired::{Desired, Revision},
        store::format::checksum,
        testing,
    },
};

/// In the environment of a child that saves states: the directory to save them in.
const CHILD_DIR: &str = "LB_TEST_STORE_DIR";

/// Held by every test here: a child that another test forks shares the lock's open file until it executes its own
/// program, so that a directory would seem in use for a moment after its store was dropped.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn author() -> Author {
    Author {
        user: "alice".into(),
        group: "lb\n#applied\n".into(),
        command: "lb".into(),
        pid: 7,
        address: None,
    }
}

fn state(revision: u64) -> Stored {
    Stored::by_command(desired(revision))
}

fn desired(revision: u64) -> Desired {
    let backends: Vec<String> = (0..200).map(|n| format!("backend-{revision}-{n}")).collect();
    let backends: Vec<(&str, u16)> = backends.iter().map(|name| (name.as_str(), 1)).collect();
    Desired {
        revision: Revision(revision),
        ..testing::desired([testing::service("web", 1, &backends)])
    }
}

fn encoded(stored: &Stored) -> String {
    let body = Texts::default().body(stored);
    header(stored.desired.revision, &body) + &body
}

/// A change of one service among many leaves the text of the others, and drops removed ones.
#[test]
fn written_text_does_not_depend_on_earlier_saves() {
    let mut texts = Texts::default();
    let service = |n: u8, weight| testing::service(&format!("s{n}"), n, &[("a", weight)]);
    let mut desired = testing::desired((1..=50).map(|n| service(n, 1)));
    type Change = Box<dyn Fn(&mut Desired)>;
    let mut changes: Vec<Change> = vec![
        Box::new(|_| {}),
        Box::new(move |desired| {
            drop(
                desired
                    .services
                    .insert("s7".parse().unwrap(), service(7, 2).into()),
            )
        }),
        Box::new(|desired| drop(desired.services.remove(&"s9".parse().unwrap()))),
    ];
    for change in &mut changes {
        change(&mut desired);
        let stored = Stored::by_command(desired.clone());
        assert_eq!(texts.body(&stored), config::export(&desired, Keys::Whole));
        assert_eq!(texts.0.len(), desired.services.len());
    }
}

fn error_of(dir: &Path) -> StoreError {
    FileStore::open(dir)
        .and_then(|store| store.load())
        .expect_err("refused")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn saved_state_is_loaded_by_the_next_daemon(first in testing::any_desired(), second in testing::any_desired()) {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let applied = |desired: &Desired| Config {
            daemon: config::DaemonSettings {
                interfaces: vec!["eth7".into()],
                on_exit: config::daemon::OnExit::Keep,
                ..config::DaemonSettings::default()
            },
            desired: Desired { revision: Revision(0), ..desired.clone() },
        };
        let file = Arc::new(applied(&first));
        for stored in [
            Stored { desired: Arc::new(first.clone()), applied: None, by: None },
            Stored { desired: Arc::new(first), applied: Some(Arc::clone(&file)), by: None },
            Stored { desired: Arc::new(second), applied: Some(file), by: Some(author()) },
            Stored { desired: Arc::default(), applied: Some(Arc::default()), by: None },
        ] {
            FileStore::open(dir.path()).unwrap().save(&stored).unwrap();
            prop_assert_eq!(FileStore::open(dir.path()).unwrap().load().unwrap(), Some(stored));
        }
    }
}

/// Text of services may look like the lines about the applied file.
#[test]
fn text_like_the_applied_file_marker_is_not_mistaken_for_it() {
    let _alone = alone();
    let mut service = testing::service("web", 1, &[("a", 1)]);
    service.health.kind = CheckKind::Exec(ExecCheck {
        command: vec!["/bin/sh".into(), "-c".into(), "true\n#applied\n#file x\n".into()],
    });
    let dir = tempfile::tempdir().unwrap();
    let desired = Arc::new(testing::desired([service]));
    for applied in [None, Some(Arc::default())] {
        let stored = Stored {
            desired: Arc::clone(&desired),
            applied,
            by: Some(author()),
        };
        FileStore::open(dir.path()).unwrap().save(&stored).unwrap();
        assert_eq!(FileStore::open(dir.path()).unwrap().load().unwrap(), Some(stored));
    }
}

#[test]
fn file_set_aside_is_kept_until_removed() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    fs::write(dir.path().join(STATE_FILE), "half a st").unwrap();
    store.load().expect_err("damaged");
    let aside = store.set_aside().unwrap();
    assert_eq!(fs::read_to_string(&aside).unwrap(), "half a st");
    store.save(&state(1)).unwrap();
    let problems = FileStore::set_aside_in(dir.path());
    assert!(
        problems[0].message.contains(aside.to_str().unwrap()),
        "{problems:?}"
    );
    fs::remove_file(aside).unwrap();
    assert_eq!(FileStore::set_aside_in(dir.path()), []);
}

/// A directory that others may write must not make a daemon write elsewhere.
#[test]
fn links_in_the_directory_are_not_followed() {
    let _alone = alone();
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in [NEW_FILE, PREVIOUS_FILE] {
        std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
    }
    let store = FileStore::open(dir.path()).unwrap();
    for revision in 1..=2 {
        store.save(&state(revision)).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(store.load().unwrap(), Some(state(2)));
    drop(store);
    fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join(LOCK_FILE)).unwrap();
    FileStore::open(dir.path()).expect_err("a lock elsewhere");
}

/// The new file is limited in size, as on a full disk: it does not stay behind.
#[test]
fn failed_save_leaves_no_file() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    FileStore::open(dir.path()).unwrap().save(&state(1)).unwrap();
    let status = child(dir.path(), "trap '' XFSZ; ulimit -f 2;").wait().unwrap();
    assert!(!status.success() && status.signal().is_none(), "{status}");
    assert!(!dir.path().join(NEW_FILE).exists());
    assert_eq!(
        FileStore::open(dir.path()).unwrap().load().unwrap(),
        Some(state(1))
    );
}

#[test]
fn missing_directory_is_created_without_a_state() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(&dir.path().join("var/lib/lb")).unwrap();
    assert_eq!(store.load().unwrap(), None);
}

#[test]
fn the_state_before_the_last_change_is_kept() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    for revision in 1..=3 {
        store.save(&state(revision)).unwrap();
    }
    let previous = fs::read(dir.path().join(PREVIOUS_FILE)).unwrap();
    assert_eq!(decode(PREVIOUS_FILE.into(), &previous).unwrap(), state(2));
}

#[test]
fn second_daemon_is_refused_until_the_first_ends() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let first = FileStore::open(dir.path()).unwrap();
    let error = FileStore::open(dir.path()).expect_err("refused");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    FileStore::open_to_read(dir.path()).expect_err("refused, too");
    drop(first);
    let _reader = FileStore::open_to_read(dir.path()).unwrap().unwrap();
    FileStore::open(dir.path()).expect("a read-only store locks nothing");
}

/// Content of the file, and a word of the error and of its hint.
#[test]
fn damaged_state_file_is_refused_and_left_unchanged() {
    let _alone = alone();
    let good = encoded(&state(7));
    let flipped = good.replacen("weight = 1", "weight = 2", 1);
    let other_revision = good.replacen("revision 7", "revision 8", 1);
    let newer = good.replacen("lb-state 1", "lb-state 2", 1);
    let unknown = {
        let body = "[lb]\nfrom_the_future = 1\n";
        format!(
            "lb-state 1 revision 7 crc32 {:08x}\n{body}",
            checksum(7, body.as_bytes())
        )
    };
    let cases: [(&[u8], &str, &str); 12] = [
        (b"", "not a state file", "--state-dir"),
        (b"\0\xff\xfe", "not a state file", "--state-dir"),
        (b"[lb]\n", "not a state file", "--state-dir"),
        (b"lb-state x", "not a state file", "--state-dir"),
        (b"lb-state 1", "is damaged", "backup"),
        (b"lb-state 1 revision 7 crc32", "is damaged", "backup"),
        (&good.as_bytes()[..good.len() / 2], "is damaged", PREVIOUS_FILE),
        (&good.as_bytes()[..good.len() - 1], "is damaged", PREVIOUS_FILE),
        (flipped.as_bytes(), "is damaged", "move"),
        (other_revision.as_bytes(), "is damaged", "move"),
        (newer.as_bytes(), "has format 2", "later one"),
        (
            unknown.as_bytes(),
            "unknown key from_the_future",
            "version of lb that wrote it",
        ),
    ];
    for (content, message, hint) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE_FILE);
        fs::write(&path, content).unwrap();
        let error = error_of(dir.path());
        assert!(error.to_string().contains(message), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "names the file: {error}"
        );
        assert!(error.hint().contains(hint), "{error}: {}", error.hint());
        assert_eq!(fs::read(&path).unwrap(), content, "nothing is overwritten");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = FileStore::open(&path).expect_err("refused");
        assert!(matches!(error, StoreError::Directory { .. }), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()) && error.source().is_some(),
            "{error}"
        );
        assert!(error.hint().contains("--state-dir"));
    }
}

#[test]
fn a_failed_save_leaves_the_old_state() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    store.save(&state(1)).unwrap();
    fs::create_dir(dir.path().join(NEW_FILE)).unwrap();
    let error = store.save(&state(2)).expect_err("nowhere to write");
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(store.load().unwrap(), Some(state(1)));
}

/// No test by itself: the process that the tests below kill. Prints each revision when it is saved. Does nothing unless
/// they start it.
#[test]
fn child_that_saves_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let store = FileStore::open(Path::new(&dir)).unwrap();
    let first = store
        .load()
        .unwrap()
        .map_or(1, |stored| stored.desired.revision.0 + 1);
    for revision in first.. {
        store.save(&state(revision)).unwrap();
        println!("saved {revision}");
    }
}

fn child(dir: &Path, limit: &str) -> Child {
    let test = format!("{}::child_that_saves_until_it_is_killed", module_path!());
    let test = test.split_once("::").unwrap().1;
    // The shell limits file sizes, since a limit is inherited.
    Command::new("sh")
        .args(["-c", &format!("{limit} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the saving process at some moment after each of many saves: the file is always whole, and at least as new as
/// the last reported state.
#[test]
fn a_kill_at_any_point_loses_no_saved_state() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut reported = 0;
    for round in 0..20 {
        let mut child = child(dir.path(), "");
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut saved = lines.filter_map(|line| line.split_once("saved ")?.1.parse::<u64>().ok());
        reported = saved.nth(round).expect("the child saves");
        child.kill().unwrap();
        child.wait().unwrap();
        let loaded = FileStore::open(dir.path())
            .unwrap()
            .load()
            .unwrap()
            .expect("a state");
        let revision = loaded.desired.revision.0;
        assert!(revision >= reported, "{revision} is older than {reported}");
        assert_eq!(loaded, state(revision), "whole");
    }
    assert!(reported > 20);
}

/// The kernel ends the process in the middle of writing the new file, at different lengths.
#[test]
fn a_kill_in_the_middle_of_a_write_leaves_the_old_state() {
    let _alone = alone();
    let length = encoded(&state(2)).len();
    for blocks in 1..u64::try_from(length).unwrap() / 1024 {
        let dir = tempfile::tempdir().unwrap();
        FileStore::open(dir.path()).unwrap().save(&state(1)).unwrap();
        // Blocks are of 512 or 1,024 bytes, depending on the shell: either is less than the file.
        let status = child(dir.path(), &format!("ulimit -c 0; ulimit -f {blocks};"))
            .wait()
            .unwrap();
        assert_eq!(status.signal(), Some(25), "ended by SIGXFSZ");
        let cut = fs::metadata(dir.path().join(NEW_FILE)).unwrap().len();
        assert!(cut > 0 && cut < u64::try_from(length).unwrap(), "{cut}");
        let store = FileStore::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), Some(state(1)));
        store.save(&state(2)).unwrap();
        assert_eq!(store.load().unwrap(), Some(state(2)));
    }
}
