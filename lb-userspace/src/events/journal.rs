//! Events on disk, for the time after a restart: one JSON object per line, in two files of bounded size.
//!
//! They are written behind the event log, so that a slow or full disk delays nothing. Lines are not synced: a killed
//! daemon loses none that were written, a power cut may lose the last ones. A truncated line is skipped.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::Event;

/// Directory within the state directory.
const DIRECTORY: &str = "events";
/// The file that is written.
const CURRENT: &str = "current.jsonl";
/// The file before it.
const PREVIOUS: &str = "previous.jsonl";
/// A file that is to take the place of one of them.
const NEW: &str = "new.jsonl";
/// Size in bytes from which on another file is begun; so the journal has twice as much at most.
const MAX_FILE: u64 = 8 << 20;
/// Bytes at the end of a file that have its last event.
const TAIL: u64 = 64 << 10;

/// The journal of a state directory.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: PathBuf,
    max_file: u64,
}

impl Journal {
    /// The journal within a state directory. Nothing is read or written yet.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join(DIRECTORY),
            max_file: MAX_FILE,
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of the last event; 0 if no event can be read.
    pub fn last(&self) -> u64 {
        let tail = |name: &&str| {
            let mut file = File::open(self.dir.join(name)).ok()?;
            let length = file.metadata().ok()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).ok()?;
            let mut lines = bytes.rsplit(|byte| *byte == b'\n');
            lines.find_map(event).map(|event| event.seq)
        };
        [CURRENT, PREVIOUS].iter().find_map(tail).unwrap_or_default()
    }

    /// Appends events. After an error none of them is there.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn append(&self, events: &[Event]) -> io::Result<()> {
        // Not the state directory itself: it may be a mount that is missing.
        match DirBuilder::new().mode(0o750).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = self.open()?;
        if file.metadata()?.len() >= self.max_file {
            fs::rename(self.dir.join(CURRENT), self.dir.join(PREVIOUS))?;
            file = self.open()?;
        }
        let length = file.metadata()?.len();
        let mut lines = Vec::new();
        if ends_within_a_line(&mut file, length)? {
            lines.push(b'\n');
        }
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        file.write_all(&lines).inspect_err(|_| {
            // A part of them would be there twice after the next attempt; if this fails, too, that is harmless.
            let _ = file.set_len(length);
        })
    }

    /// Gives the events to `each`, oldest first, until it breaks.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, mut each: impl FnMut(Event) -> ControlFlow<()>) -> io::Result<()> {
        // The current one first: if it becomes the previous one in between, it is read twice, and not missed.
        let current = open_if_there(&self.dir.join(CURRENT))?;
        let previous = open_if_there(&self.dir.join(PREVIOUS))?;
        let mut last = 0;
        for file in [previous, current].into_iter().flatten() {
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                if let Some(event) = event(&line).filter(|event| event.seq > last) {
                    last = event.seq;
                    if each(event).is_break() {
                        return Ok(());
                    }
                }
                line.clear();
            }
        }
        Ok(())
    }

    /// Takes credentials out of events that earlier versions wrote. To be called before events are appended.
    ///
    /// # Errors
    /// A file cannot be read or written; it is then as before.
    pub fn redact(&self) -> io::Result<()> {
        for name in [PREVIOUS, CURRENT] {
            let Some(mut file) = open_if_there(&self.dir.join(name))? else {
                continue;
            };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let mut changes = false;
            let mut lines = Vec::with_capacity(bytes.len());
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                match serde_json::from_slice::<Event>(line) {
                    Ok(event) if event != event.clone().without_credentials() => {
                        changes = true;
                        serde_json::to_writer(&mut lines, &event.without_credentials())?;
                        lines.push(b'\n');
                    }
                    Ok(_) | Err(_) => lines.extend_from_slice(line),
                }
            }
            if changes {
                self.replace(name, &lines)?;
            }
        }
        Ok(())
    }

    fn replace(&self, name: &str, lines: &[u8]) -> io::Result<()> {
        let new = self.dir.join(NEW);
        // Of an earlier attempt.
        let _ = fs::remove_file(&new);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&new)
            .and_then(|mut file| file.write_all(lines))
            .and_then(|()| fs::rename(&new, self.dir.join(name)));
        written.inspect_err(|_| {
            // A full disk gets the space back.
            let _ = fs::remove_file(&new);
        })
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.dir.join(CURRENT))
    }
}

/// The event of a line; `None` if the line is truncated, or of a later version.
fn event(line: &[u8]) -> Option<Event> {
    let event: Event = serde_json::from_slice(line).ok()?;
    Some(event.without_credentials())
}

fn ends_within_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventKind;

    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<Event> {
        let event = |seq| Event {
            seq,
            at: "1970-01-01T00:00:00.000Z".into(),
            kind: EventKind::Health,
            service: None,
            backend: None,
            revision: 1,
            message: "x".repeat(100),
            by: None,
        };
        numbers.into_iter().map(event).collect()
    }

    fn numbers(journal: &Journal) -> Vec<u64> {
        let mut all = Vec::new();
        let each = |event: Event| {
            all.push(event.seq);
            ControlFlow::Continue(())
        };
        journal.read(each).unwrap();
        all
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        assert_eq!((journal.last(), numbers(&journal)), (0, vec![]));
        journal.append(&events(1..=3)).unwrap();
        let file = journal.dir().join(CURRENT);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 20]).unwrap();
        assert_eq!((journal.last(), numbers(&journal)), (2, vec![1, 2]));
        journal.append(&events(3..=4)).unwrap();
        assert_eq!((journal.last(), numbers(&journal)), (4, vec![1, 2, 3, 4]));
        fs::write(&file, [&whole[..], b"\0\0\xff\n{}\n"].concat()).unwrap();
        journal.append(&events([9])).unwrap();
        assert_eq!((journal.last(), numbers(&journal)), (9, vec![1, 2, 3, 9]));
    }

    /// Earlier versions wrote the values of headers; whoever may read events, or a copy of the disk, had them.
    #[test]
    fn credentials_of_earlier_versions_leave_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        journal.redact().unwrap();
        journal.append(&events(1..=2)).unwrap();
        let [current, previous] = [CURRENT, PREVIOUS].map(|name| journal.dir().join(name));
        let old = "{\"seq\":SEQ,\"at\":\"2026-11-29T10:00:00.000Z\",\"kind\":\"service\",\"service\":\"web\",\"backend\":null,\
                   \"revision\":1,\"message\":\"changed: health.headers {} -> { Authorization = \\\"Bearer s3cret\\\" }, port 80\"}\n";
        fs::rename(&current, &previous).unwrap();
        let line = |number: &str| old.replace("SEQ", number);
        let torn = &line("5")[..20];
        let text = fs::read_to_string(&previous).unwrap() + &line("3") + "from a later version\n";
        fs::write(&previous, text).unwrap();
        fs::write(&current, line("4") + torn).unwrap();

        let mut messages = Vec::new();
        let each = |event: Event| {
            messages.push(event.message);
            ControlFlow::Continue(())
        };
        journal.read(each).unwrap();
        assert_eq!(
            messages[2..],
            ["changed: health.headers, port 80"; 2],
            "also before"
        );
        journal.redact().unwrap();
        for file in [&current, &previous] {
            let text = fs::read_to_string(file).unwrap();
            assert!(
                !text.contains("s3cret") && text.contains("health.headers, port 80"),
                "{text}"
            );
        }
        assert!(
            fs::read_to_string(&previous)
                .unwrap()
                .ends_with("from a later version\n")
        );
        assert!(fs::read_to_string(&current).unwrap().ends_with(torn));
        journal.append(&events([6])).unwrap();
        assert_eq!(numbers(&journal), [1, 2, 3, 4, 6]);
        assert_eq!(fs::read_dir(journal.dir()).unwrap().count(), 2);
    }

    #[test]
    fn the_oldest_file_goes_when_the_current_one_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal {
            max_file: 1_000,
            ..Journal::new(dir.path())
        };
        for number in 1..=100 {
            journal.append(&events([number])).unwrap();
        }
        let kept = numbers(&journal);
        assert_eq!(kept.last(), Some(&100));
        assert!((5..=15).contains(&kept.len()), "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
        fs::write(journal.dir().join(CURRENT), "").unwrap();
        assert!(journal.last() > 80, "the previous file counts");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(&dir.path().join("missing"));
        journal.append(&events([1])).unwrap_err();
        assert_eq!((journal.last(), numbers(&journal)), (0, vec![]));
        assert!(!dir.path().join("missing").exists());
    }
}
