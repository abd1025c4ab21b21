//! A draft as a configuration file, with remarks as comments.

use std::{collections::HashMap, rc::Rc};

use lb_model::{
    config::{
        daemon::DaemonSettings,
        export::{self, Part},
        fields::Keys,
    },
    state::names::BackendName,
};

use crate::{
    draft::{Draft, ServiceDraft},
    statement::{Remark, Statement, comment_lines},
};

/// A configuration file of `lb`, and what became of the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// The file. `lb check-config` accepts it.
    pub toml: String,
    /// Number of services.
    pub services: usize,
    /// Number of backends; a host name counts as one.
    pub backends: usize,
    /// Lines without a counterpart, or with only a part of one, in the order of `toml`.
    pub remarks: Vec<Remark>,
    /// Further differences, which no line of the source says alone.
    pub notes: Vec<String>,
}

/// The file of a draft that is settled.
pub(crate) fn render(draft: &Draft, source: &str) -> Imported {
    let mut remarks = Vec::new();
    let mut notes = draft.notes.clone();
    let mut body = String::new();
    let mut backends = 0;
    // Services first: what belongs to none stands at the head.
    for service in &draft.services {
        backends += service.entries.len();
        let whole = service.whole();
        let by_name = service.statements_by_name();
        let text = export::commented(&whole, Keys::Hidden, |part| {
            let (lines, placed) = comments(service, &by_name, part);
            remarks.extend(placed);
            lines
        });
        notes.extend(service.notes.iter().cloned());
        body.push_str(&text);
    }
    let rest: Vec<Remark> = draft
        .statements
        .iter()
        .filter_map(|statement| statement.place())
        .collect();
    let mut head = vec![
        format!(
            "From {source} by lb import: {}.",
            counts(draft.services.len(), backends)
        ),
        "Lines of the source without a counterpart are comments, with the reason. Name the interfaces"
            .to_owned(),
        "in [lb] (interfaces = [\"eth0\"]), or start with lb run --iface eth0.".to_owned(),
    ];
    head.extend(draft.notes.iter().cloned());
    if !rest.is_empty() {
        head.push(String::new());
        head.extend(comment_lines(&rest));
    }
    let mut toml: String = head.iter().map(|line| export::comment("", line)).collect();
    toml.push('\n');
    toml.push_str(&export::lb(&DaemonSettings::default(), &draft.settings));
    toml.push_str(&body);
    toml.truncate(toml.trim_end().len());
    toml.push('\n');
    remarks.splice(0..0, rest);
    Imported {
        toml,
        services: draft.services.len(),
        backends,
        remarks,
        notes,
    }
}

impl Imported {
    /// What was imported, and how much was not, in a line.
    pub fn summary(&self) -> String {
        let lost = match self.remarks.len() + self.notes.len() {
            0 => "every line has a counterpart".to_owned(),
            remarks => format!(
                "{} on what has none, or another meaning",
                count(remarks, "comment")
            ),
        };
        format!("{}; {lost}", counts(self.services, self.backends))
    }
}

fn counts(services: usize, backends: usize) -> String {
    format!("{}, {}", count(services, "service"), count(backends, "backend"))
}

/// A number with its noun.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn comments(
    draft: &ServiceDraft,
    by_name: &HashMap<&BackendName, &[Rc<Statement>]>,
    part: Part<'_>,
) -> (Vec<String>, Vec<Remark>) {
    let statements = match part {
        Part::Service => draft.statements.as_slice(),
        Part::Backend(name) => by_name.get(name).copied().unwrap_or_default(),
    };
    let mut remarks: Vec<Remark> = statements
        .iter()
        .filter_map(|statement| statement.place())
        .collect();
    remarks.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    let mut lines = comment_lines(&remarks);
    if part == Part::Service {
        lines.extend(draft.notes.iter().cloned());
    }
    (lines, remarks)
}
