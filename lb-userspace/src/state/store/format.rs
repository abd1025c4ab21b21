//! Format of a state file: a header with a checksum, the state as a configuration file, and, in comments, where the
//! file that was applied last differs:
//!
//! ```text
//! lb-state 1 revision 7 crc32 89abcdef
//! #by {"user":"root",…}
//! [[service]]
//! ...
//! #applied
//! #file [[service]]
//! #file ...
//! #without NAME
//! ```
//!
//! Earlier versions of lb ignore the comments. Services that are equal in state and file are written once.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf, sync::Arc};

use super::error::StoreError;
use crate::{
    author::Author,
    config::{self, Config, export, fields::Keys},
    state::{
        desired::{Desired, Revision},
        names::ServiceName,
        service::Service,
        shared::Shared,
        store::names::FORMAT,
        stored::Stored,
    },
};

/// Before the author of the revision, in the first line.
const BY: &str = "#by ";
const MAGIC: &str = "lb-state";

/// Begin of the part about the applied file.
const APPLIED: &str = "#applied";
/// Before each line of the part of the applied file that the state does not share.
const LINE: &str = "#file";
/// Before the name of a service that the applied file does not have.
const WITHOUT: &str = "#without ";

/// The text of each service that was saved last.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) BTreeMap<ServiceName, (Shared<Service>, Box<str>)>);

impl Texts {
    /// The file's content, behind its header.
    pub(super) fn body(&mut self, Stored { desired, applied, by }: &Stored) -> String {
        let mut body = by.as_ref().map_or_else(String::new, author_line);
        body.push_str(&self.state(desired));
        if let Some(applied) = applied {
            push_applied(&mut body, desired, applied);
        }
        body
    }

    fn state(&mut self, desired: &Desired) -> String {
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

/// The line that names an author. It has no line feed within: JSON escapes it.
fn author_line(by: &Author) -> String {
    let by = serde_json::to_string(by).unwrap_or_default();
    format!("{BY}{by}\n")
}

/// The author of a state; `None` if no command made it, or if this version cannot read the line.
fn author(body: &str) -> Option<Author> {
    let line = body.lines().next()?.strip_prefix(BY)?;
    serde_json::from_str(line).ok()
}

/// Appends the differences of `applied` from `desired`.
fn push_applied(body: &mut String, desired: &Desired, applied: &Config) {
    let mut file = export::lb(&applied.daemon, &applied.desired.settings);
    for (name, service) in &applied.desired.services {
        if desired.services.get(name) != Some(service) {
            file.push_str(&export::service(service, Keys::Whole));
        }
    }
    // Writing to a string cannot fail.
    let _ = writeln!(body, "{APPLIED}");
    for line in file.lines() {
        let _ = writeln!(body, "{LINE} {line}");
    }
    let added = desired.services.keys();
    for name in added.filter(|name| !applied.desired.services.contains_key(*name)) {
        let _ = writeln!(body, "{WITHOUT}{name}");
    }
}

/// The state's text, and the lines about the applied file if there are any. A text of several lines within the state may
/// hold anything, so only lines up to the end of the file count.
fn split_applied(body: &str) -> (&str, Option<&str>) {
    let marker = format!("{APPLIED}\n");
    let at = match body.rfind(&format!("\n{marker}")) {
        Some(at) => at + 1,
        None if body.starts_with(&marker) => 0,
        None => return (body, None),
    };
    let (state, lines) = body.split_at(at);
    let lines = &lines[marker.len()..];
    if lines
        .lines()
        .all(|line| line.starts_with(LINE) || line.starts_with(WITHOUT))
    {
        (state, Some(lines))
    } else {
        (body, None)
    }
}

/// The file that was applied last, from its differences to `desired`; `None` if this version cannot parse it.
fn applied(lines: &str, desired: &Desired) -> Option<Config> {
    let mut text = String::new();
    let mut services = desired.services.clone();
    for line in lines.lines() {
        if let Some(name) = line.strip_prefix(WITHOUT) {
            services.remove(&name.parse::<ServiceName>().ok()?);
        } else if let Some(line) = line.strip_prefix(LINE) {
            text.push_str(line.strip_prefix(' ').unwrap_or(line));
            text.push('\n');
        }
    }
    let Config { daemon, desired: own } = config::parse(&text, APPLIED).ok()?;
    services.extend(own.services);
    Some(Config {
        daemon,
        desired: Desired {
            revision: Revision::default(),
            settings: own.settings,
            services,
        },
    })
}

pub(super) fn header(Revision(revision): Revision, body: &str) -> String {
    format!(
        "{MAGIC} {FORMAT} revision {revision} crc32 {:08x}\n",
        checksum(revision, body.as_bytes())
    )
}

/// Of the content together with the revision, which stands before it in the header.
pub(super) fn checksum(revision: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

pub(super) fn decode(file: PathBuf, bytes: &[u8]) -> Result<Stored, StoreError> {
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
    // A truncated header has no usable checksum, so the file counts as damaged.
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
    let (state, lines) = split_applied(&text);
    match config::parse(state, &file.display().to_string()) {
        Ok(config) => {
            let desired = Desired {
                revision: Revision(revision),
                ..config.desired
            };
            let applied = lines.and_then(|lines| applied(lines, &desired));
            Ok(Stored {
                desired: Arc::new(desired),
                applied: applied.map(Arc::new),
                by: author(&text),
            })
        }
        Err(errors) => Err(StoreError::Content { file, errors }),
    }
}
