//! The report of a benchmark, and its files: `NAME.json`, `NAME.md` and a picture for each plot.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    machine::{Machine, Versions},
    plot::Plot,
    table::Table,
};

/// What was measured of a figure that is to be reached.
pub struct Figure {
    /// Its name among the figures to reach.
    pub target: &'static str,
    /// Ours.
    pub ours: String,
    /// The same of peers in the same run, where they have it.
    pub peers: String,
    /// Whether it was reached; `None` where there is nothing to reach.
    pub is_met: Option<bool>,
    /// What a reader must know, such as why it was missed.
    pub note: String,
}

/// Something that must hold in any run, however short, such as equal counts.
struct Check {
    what: String,
    error: Option<String>,
}

/// What a benchmark gives.
#[derive(Default)]
pub struct Report {
    about: String,
    tables: Vec<Table>,
    plots: Vec<Plot>,
    notes: Vec<String>,
    figures: Vec<Figure>,
    checks: Vec<Check>,
}

/// How a benchmark ran.
pub struct Origin<'a> {
    /// Its name, which is that of its files.
    pub name: &'a str,
    /// The command that runs it.
    pub command: &'a str,
    /// Turns of each figure.
    pub turns: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// The machine.
    pub machine: &'a Machine,
    /// What else ran.
    pub versions: &'a Versions,
}

impl Report {
    /// A report of something, in a few sentences that say how it was measured.
    pub fn new(about: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            ..Self::default()
        }
    }

    /// Says what it is about, where that is known only later.
    pub fn about(&mut self, about: impl Into<String>) {
        self.about = about.into();
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Adds a plot.
    pub fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// Adds what a reader must know.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a figure that was to be reached.
    pub fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds something that must hold, with the error if it does not.
    pub fn check(&mut self, what: impl Into<String>, error: Option<String>) {
        self.checks.push(Check {
            what: what.into(),
            error,
        });
    }

    /// Adds two counts that must be equal.
    pub fn check_equal(&mut self, what: impl Into<String>, ours: u64, expected: u64) {
        let error = (ours != expected).then(|| format!("{ours} instead of {expected}"));
        self.check(what, error);
    }

    /// What did not hold.
    pub fn failures(&self) -> Vec<String> {
        let failed = |check: &Check| Some(format!("{}: {}", check.what, check.error.as_ref()?));
        self.checks.iter().filter_map(failed).collect()
    }

    /// Writes the files into a directory.
    ///
    /// # Errors
    /// When a file cannot be written, or a plot has nothing to draw.
    pub fn write(&self, dir: &Path, origin: &Origin) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let write = |file: String, content: String| {
            let path = dir.join(file);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))
        };
        for plot in &self.plots {
            write(picture(origin.name, plot), plot.svg()?)?;
        }
        write(format!("{}.md", origin.name), self.markdown(origin))?;
        write(
            format!("{}.json", origin.name),
            format!("{}\n", self.json(origin)),
        )
    }

    /// For people.
    pub fn markdown(&self, origin: &Origin) -> String {
        let mut text = format!("# {}: `{}`\n\n{}\n\n", origin.name, origin.command, self.about);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}. {}. Medians of {} turns, in brackets the least and the greatest value; it took {:.0} s.",
            origin.machine.text(),
            origin.versions.values().cloned().collect::<Vec<_>>().join(", "),
            origin.turns,
            origin.seconds
        );
        for table in &self.tables {
            let _ = write!(text, "\n{}", table.markdown());
        }
        for plot in &self.plots {
            let _ = write!(text, "\n![{}]({})\n", plot.title, picture(origin.name, plot));
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        for check in &self.checks {
            let result = check.error.as_deref().unwrap_or("yes");
            let _ = write!(text, "\n- Checked: {}: {result}", check.what);
        }
        if !(self.notes.is_empty() && self.checks.is_empty()) {
            text.push('\n');
        }
        text
    }

    /// For programs.
    pub fn json(&self, origin: &Origin) -> Value {
        let checks = self.checks.iter();
        let figures = self.figures.iter();
        json!({
            "name": origin.name,
            "command": origin.command,
            "turns": origin.turns,
            "seconds": origin.seconds,
            "machine": origin.machine.json(),
            "versions": origin.versions,
            "about": self.about,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "plots": self.plots.iter().map(|plot| picture(origin.name, plot)).collect::<Vec<_>>(),
            "notes": self.notes,
            "checks": checks
                .map(|check| json!({"what": check.what, "error": check.error}))
                .collect::<Vec<_>>(),
            "figures": figures
                .map(|figure| json!({
                    "target": figure.target,
                    "ours": figure.ours,
                    "peers": figure.peers,
                    "met": figure.is_met,
                    "note": figure.note,
                }))
                .collect::<Vec<_>>(),
        })
    }
}

/// The file of a plot.
fn picture(name: &str, plot: &Plot) -> String {
    format!("{name}{}.svg", plot.suffix)
}
