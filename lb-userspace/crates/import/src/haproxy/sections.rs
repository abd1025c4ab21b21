//! Sections of HAProxy's configuration.

use std::rc::Rc;

use super::words;
use crate::{
    error::ImportError,
    statement::{Size, Statement},
};

/// Longest line, in bytes: HAProxy's own is 2 KiB.
const MAX_LINE: usize = 64 * 1024;

/// What a section is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionKind {
    /// `global`, and lines before any section.
    Global,
    /// `defaults`.
    Defaults,
    /// `frontend`.
    Frontend,
    /// `backend`.
    Backend,
    /// `listen`: both in one.
    Listen,
    /// Another one, without a counterpart.
    Other,
}

/// A section with its lines.
#[derive(Debug)]
pub(super) struct Section {
    /// What it is.
    pub(super) kind: SectionKind,
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// Name of the `defaults` that it names.
    pub(super) from: Option<String>,
    /// The line that begins it, and its own lines.
    pub(super) statements: Vec<Rc<Statement>>,
}

impl Section {
    /// Its own lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Rc<Statement>> {
        self.statements.iter().skip(1)
    }

    /// None of its lines has a counterpart.
    pub(super) fn lose(&self, reason: &str) {
        for line in &self.statements {
            line.lose_all(reason);
        }
    }
}

/// First words that begin a section.
const OTHERS: [&str; 16] = [
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "http-errors",
    "fcgi-app",
    "program",
    "ring",
    "log-forward",
    "log-profile",
    "traces",
    "crt-store",
    "acme",
    "spoe-agent",
    "spoe-message",
];

/// Reads all sections.
///
/// # Errors
/// A quote does not end, or a line or all of it is too long.
pub(super) fn read(file: &Rc<str>, text: &str) -> Result<Vec<Section>, ImportError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut size = Size::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.len() > MAX_LINE {
            return Err(ImportError::syntax(
                file,
                number,
                format!("the line is longer than {MAX_LINE} bytes"),
            ));
        }
        let words = words::split(file, number, line)?;
        size.add(file, number, words.len(), line.len())?;
        let Some(first) = words.first() else { continue };
        let kind = match first.as_str() {
            "global" => Some(SectionKind::Global),
            "defaults" => Some(SectionKind::Defaults),
            "frontend" => Some(SectionKind::Frontend),
            "backend" => Some(SectionKind::Backend),
            "listen" => Some(SectionKind::Listen),
            other if OTHERS.contains(&other) => Some(SectionKind::Other),
            _ => None,
        };
        let statement = Statement::new(file, number, line, words);
        match (kind, sections.last_mut()) {
            (Some(kind), _) => sections.push(begin(kind, statement)),
            (None, Some(section)) => section.statements.push(statement),
            (None, None) => sections.push(Section {
                kind: SectionKind::Global,
                name: String::new(),
                from: None,
                statements: vec![statement],
            }),
        }
    }
    Ok(sections)
}

fn begin(kind: SectionKind, line: Rc<Statement>) -> Section {
    let (name, from) = match line.rest(1) {
        [word, from] if word == "from" => (String::new(), Some(from.clone())),
        [name, word, from] if word == "from" => (name.clone(), Some(from.clone())),
        [name, ..] => (name.clone(), None),
        [] => (String::new(), None),
    };
    if kind != SectionKind::Other {
        let named = 1 + usize::from(!name.is_empty());
        line.map(0..if from.is_some() { named + 2 } else { named });
    }
    Section {
        kind,
        name,
        from,
        statements: vec![line],
    }
}
