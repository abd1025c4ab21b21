//! What a run is asked for, and how it tells its progress.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::Command,
    time::Instant,
};

use anyhow::{Result, bail};
use lb_tests::{
    lb_cli::lb_binary,
    load_tool,
    report::machine::{Versions, version},
};

use crate::tries::{TRY, Tries};

/// Turns of each figure; things that are compared take turns within each.
const TURNS: usize = 5;

/// How much of a run.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Scope {
    /// One turn with tiny counts, in seconds: shows that the run works, and no figure to quote
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only this, such as a mode; can be repeated
    #[arg(long, value_name = "WHAT")]
    pub(crate) only: Vec<String>,
    /// Of the peers only this one; can be repeated
    #[arg(long, value_name = "PEER")]
    pub(crate) with: Vec<String>,
}

/// What a run is given.
pub(crate) struct Context {
    name: &'static str,
    scope: Scope,
    versions: Versions,
    begin: Instant,
    /// What is tried in this run.
    pub(crate) tries: Tries,
}

impl Context {
    /// For the run of this name.
    ///
    /// # Errors
    /// When `lb` or the load tool is not there, or something is to be tried that there is not.
    pub(crate) fn new(name: &'static str, scope: Scope) -> Result<Self> {
        let mut context = Self {
            name,
            scope,
            versions: Versions::new(),
            begin: Instant::now(),
            tries: Tries::read()?,
        };
        if let Ok(tries) = env::var(TRY) {
            context.versions.insert(TRY.to_owned(), tries);
        }
        context.add_version("lb", Command::new(lb_binary()?).arg("--version"))?;
        context.add_version("lb-bench", Command::new(load_tool::binary()?).arg("--version"))?;
        Ok(context)
    }

    /// Notes the version of a program that this run uses.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn add_version(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.versions.insert(name.to_owned(), version(command)?);
        Ok(())
    }

    /// The versions noted so far.
    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Whether this run only shows that it works.
    pub(crate) fn is_quick(&self) -> bool {
        self.scope.quick
    }

    /// One value for a quick run, and another one else.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.scope.quick { quick } else { full }
    }

    /// Turns of each figure.
    pub(crate) fn turns(&self) -> usize {
        self.pick(1, TURNS)
    }

    /// Refuses words of `--only` and `--with` that are none of these.
    ///
    /// # Errors
    /// With the word, and those that there are.
    pub(crate) fn allow(&self, parts: &[&str], peers: &[&str]) -> Result<()> {
        for (option, words, known) in [
            ("--only", &self.scope.only, parts),
            ("--with", &self.scope.with, peers),
        ] {
            if let Some(word) = words.iter().find(|word| !known.contains(&word.as_str())) {
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                bail!(
                    "{option} {word}: the run {} has no such part; there are: {known}",
                    self.name
                );
            }
        }
        Ok(())
    }

    /// Whether a part of a run is asked for: without `--only` all of them are.
    pub(crate) fn wants(&self, what: &str) -> bool {
        self.scope.only.is_empty() || self.scope.only.iter().any(|only| only == what)
    }

    /// Whether a peer is asked for: without `--with` all of them are.
    pub(crate) fn wants_peer(&self, peer: &str) -> bool {
        self.scope.with.is_empty() || self.scope.with.iter().any(|with| with == peer)
    }

    /// Shows what is measured now: on a terminal in place, else in lines.
    pub(crate) fn progress(&self, what: &str) {
        let seconds = self.begin.elapsed().as_secs();
        let line = format!("{seconds:>4} s  {}: {what}", self.name);
        let mut out = io::stderr().lock();
        // A line of progress that cannot be written changes no result.
        let _ = if out.is_terminal() {
            write!(out, "\r\x1b[K{line}")
        } else {
            writeln!(out, "{line}")
        };
        let _ = out.flush();
    }
}
