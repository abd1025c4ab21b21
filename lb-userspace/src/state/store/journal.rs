//! The journal of health states, agent updates and the like: each change is appended before it takes effect. The latest
//! line of a subject counts. Each line has a checksum, so that a line truncated by a crash is skipped:
//!
//! ```text
//! 89abcdef {"check":{"service":"web","backend":"web-1","target":"10.0.0.11:8080","health":"up"}}
//! ```
//!
//! Lines are not synced: after a power cut, checks find the state again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    health::{CheckId, Memory, agent::AgentAnswer},
    state::names::{BackendName, ServiceName},
};

const JOURNAL_FILE: &str = "journal";
const NEW_FILE: &str = "journal.new";

/// Size in bytes above which a journal is rewritten, if it has doubled since the last rewrite.
const REWRITE_FROM: u64 = 1 << 20;

/// A stored fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// What checks know of a backend.
    Check {
        /// Its service.
        service: String,
        /// Its name.
        backend: String,
        /// Its address: another server of the same name is another matter.
        target: SocketAddr,
        /// The memory of the checks.
        #[serde(flatten)]
        memory: Memory,
    },
    /// The latest report about a target, for checks of kind push.
    Report {
        /// The checked address.
        target: SocketAddr,
        /// The reported failure; `None` if up.
        down: Option<String>,
        /// When it came, in milliseconds since 1970.
        at: u64,
        /// How long it holds, in milliseconds.
        ttl: u64,
    },
    /// The agent state in force, in the words of the protocol.
    Agent {
        /// The service of its backend.
        service: String,
        /// The name of its backend.
        backend: String,
        /// How the backend wants to be used.
        admin: String,
        /// How it is.
        state: String,
        /// Share of the configured weight, in percent.
        percent: u16,
    },
    /// A backend that was removed and may finish its flows.
    Removed {
        /// Address and port of its service, as [`crate::state::service::ServiceKey::endpoint`] gives them.
        service: String,
        /// Protocol of its service.
        protocol: String,
        /// The name it had.
        backend: String,
        /// Its address.
        target: SocketAddr,
        /// Until when, in milliseconds since 1970; a past time: the backend was dropped.
        until: u64,
    },
}

/// The subject of a record: the latest one counts.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// Checks of a backend, by service and name.
    Check(String, String),
    /// Reports about an address.
    Report(SocketAddr),
    /// The agent of a backend, by service and name.
    Agent(String, String),
    /// A removed backend, by address and protocol of its service.
    Removed(String, String, SocketAddr),
}

impl Record {
    /// What checks know of a backend.
    pub fn check(CheckId(service, backend): &CheckId, target: SocketAddr, memory: Memory) -> Self {
        Self::Check {
            service: service.to_string(),
            backend: backend.to_string(),
            target,
            memory,
        }
    }

    /// The last report of an agent.
    pub fn agent(CheckId(service, backend): &CheckId, word: AgentAnswer) -> Self {
        let AgentAnswer {
            admin,
            state,
            percent,
        } = word;
        Self::Agent {
            service: service.to_string(),
            backend: backend.to_string(),
            admin: admin.to_string(),
            state: state.to_string(),
            percent,
        }
    }

    /// The backend that a record of a check or an agent is about.
    pub fn id(service: &str, backend: &str) -> Option<CheckId> {
        let service: ServiceName = service.parse().ok()?;
        let backend: BackendName = backend.parse().ok()?;
        Some(CheckId(service, backend))
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Check { service, backend, .. } => Subject::Check(service.clone(), backend.clone()),
            Self::Report { target, .. } => Subject::Report(*target),
            Self::Agent { service, backend, .. } => Subject::Agent(service.clone(), backend.clone()),
            Self::Removed {
                service,
                protocol,
                target,
                ..
            } => Subject::Removed(service.clone(), protocol.clone(), *target),
        }
    }
}

/// The journal of a state directory.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` before the first record.
    file: Option<File>,
    /// In bytes.
    size: u64,
    /// Size at the last rewrite.
    size_then: u64,
}

impl Journal {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            inner: Mutex::default(),
        }
    }

    /// The latest record of each subject, and how many lines were skipped. Empty without a journal.
    pub(super) fn recall(&self) -> io::Result<(Vec<Record>, usize)> {
        let mut bytes = Vec::new();
        let options = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.dir.join(JOURNAL_FILE));
        match options.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        }
        let (mut latest, mut damaged) = (BTreeMap::new(), 0);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match parse(line) {
                Some(record) => drop(latest.insert(record.subject(), record)),
                None => damaged += 1,
            }
        }
        Ok((latest.into_values().collect(), damaged))
    }

    /// Replaces the journal by `records`.
    pub(super) fn rewrite(&self, records: &[Record]) -> io::Result<()> {
        // After a panic elsewhere the sizes may be too small: the file is rewritten too late at worst.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.rewrite_locked(&mut inner, records)
    }

    /// Appends `records` in one piece.
    pub(super) fn append(&self, records: &[Record]) -> io::Result<()> {
        // Starts a new line after one that a full disk truncated.
        let text = [b"\n", lines(records)?.as_slice()].concat();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { file, size, .. } = &mut *inner;
        let file = match file {
            Some(file) => file,
            None => {
                let opened = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(self.dir.join(JOURNAL_FILE))?;
                *size = opened.metadata()?.len();
                file.insert(opened)
            }
        };
        file.write_all(&text)?;
        *size += u64::try_from(text.len()).unwrap_or(u64::MAX);
        if inner.size > REWRITE_FROM && inner.size / 2 > inner.size_then {
            let (records, _) = self.recall()?;
            self.rewrite_locked(&mut inner, &records)?;
        }
        Ok(())
    }

    fn rewrite_locked(&self, inner: &mut Inner, records: &[Record]) -> io::Result<()> {
        let [file, new] = [JOURNAL_FILE, NEW_FILE].map(|name| self.dir.join(name));
        let _ = fs::remove_file(&new);
        let text = lines(records)?;
        let written = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut opened| opened.write_all(&text).map(|()| opened))
            .and_then(|opened| fs::rename(&new, &file).map(|()| opened));
        match written {
            Ok(opened) => {
                let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
                *inner = Inner {
                    file: Some(opened),
                    size,
                    size_then: size,
                };
                Ok(())
            }
            Err(error) => {
                // A full disk gets the space back.
                let _ = fs::remove_file(&new);
                Err(error)
            }
        }
    }
}

fn lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        let json = serde_json::to_string(record)?;
        writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
    }
    Ok(text)
}

/// A line's record; `None` where it is damaged, or of a kind that this version does not know.
fn parse(line: &[u8]) -> Option<Record> {
    let (sum, json) = str::from_utf8(line).ok()?.split_once(' ')?;
    let whole = u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json.as_bytes());
    serde_json::from_str(json).ok().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::Health, state::testing::id};

    fn check(backend: &str, health: Health) -> Record {
        let memory = Memory {
            health,
            ..Memory::default()
        };
        Record::check(&id("web", backend), "10.0.0.1:80".parse().unwrap(), memory)
    }

    fn report(ttl: u64) -> Record {
        Record::Report {
            target: "10.0.0.1:80".parse().unwrap(),
            down: Some("disk full".into()),
            at: 1_700_000_000_000,
            ttl,
        }
    }

    #[test]
    fn the_latest_record_about_each_thing_counts() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        assert_eq!(journal.recall().unwrap(), (Vec::new(), 0));
        journal
            .append(&[check("a", Health::Up), check("b", Health::Up), report(1)])
            .unwrap();
        journal.append(&[check("a", Health::Down), report(2)]).unwrap();
        let latest = vec![check("a", Health::Down), check("b", Health::Up), report(2)];
        assert_eq!(Journal::new(dir.path()).recall().unwrap(), (latest, 0));
        journal.rewrite(&[check("b", Health::Up)]).unwrap();
        journal.append(&[report(3)]).unwrap();
        let left = vec![check("b", Health::Up), report(3)];
        assert_eq!(Journal::new(dir.path()).recall().unwrap(), (left, 0));
    }

    /// A kill, or a full disk, cuts the last line short at any byte.
    #[test]
    fn a_line_cut_short_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        Journal::new(dir.path())
            .append(&[check("a", Health::Up), check("b", Health::Down)])
            .unwrap();
        let file = dir.path().join(JOURNAL_FILE);
        let whole = fs::read(&file).unwrap();
        // Behind the empty line that an append begins with.
        let first = 1 + whole[1..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first + 1..whole.len() - 1 {
            fs::write(&file, &whole[..cut]).unwrap();
            let journal = Journal::new(dir.path());
            assert_eq!(
                journal.recall().unwrap(),
                (vec![check("a", Health::Up)], 1),
                "at {cut}"
            );
            journal.append(&[check("b", Health::Up)]).unwrap();
            assert_eq!(journal.recall().unwrap().0[1], check("b", Health::Up), "at {cut}");
        }
        let text = String::from_utf8(whole).unwrap();
        fs::write(&file, text.replace("down", "up")).unwrap();
        let altered = Journal::new(dir.path()).recall().unwrap();
        assert_eq!(
            altered,
            (vec![check("a", Health::Up)], 1),
            "its checksum is another"
        );
        fs::write(&file, b"\0\xff\n{}\n00000000 {}\nlb\n").unwrap();
        assert_eq!(Journal::new(dir.path()).recall().unwrap(), (Vec::new(), 4));
    }

    #[test]
    fn a_journal_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let long = |number: u64| Record::Report {
            target: SocketAddr::from(([10, 0, 0, 1], u16::try_from(number % 7).unwrap())),
            down: Some("x".repeat(1_000)),
            at: number,
            ttl: 1,
        };
        for number in 0..5_000 {
            journal.append(&[long(number)]).unwrap();
        }
        let size = fs::metadata(dir.path().join(JOURNAL_FILE)).unwrap().len();
        assert!(size <= REWRITE_FROM + 2_000, "{size} bytes");
        assert_eq!(journal.recall().unwrap().0.len(), 7);
    }

    /// The directory in the journal's place stands for a disk that is full.
    #[test]
    fn failed_rewrite_of_the_journal_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(JOURNAL_FILE)).unwrap();
        Journal::new(dir.path()).rewrite(&[report(1)]).unwrap_err();
        assert!(!dir.path().join(NEW_FILE).exists());
    }

    #[test]
    fn links_are_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in [JOURNAL_FILE, NEW_FILE] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        let journal = Journal::new(dir.path());
        journal.recall().unwrap_err();
        journal.append(&[report(1)]).unwrap_err();
        journal.rewrite(&[report(1)]).unwrap();
        assert_eq!(journal.recall().unwrap().0, [report(1)]);
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}
