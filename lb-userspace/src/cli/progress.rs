//! Progress of a command that waits: one line that is rewritten on a terminal, a line from time to time elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::{
    fit::{Cut, columns, cut},
    output::remark,
};

/// Time between two lines that are not on a terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Progress that is shown on standard error.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last: Option<Instant>,
}

impl Progress {
    /// Shows how far it is.
    pub(super) fn show(&mut self, text: &str) {
        if io::stderr().is_terminal() {
            // The last column stays free: a terminal would begin another line.
            let text = cut(text, columns().saturating_sub(1), Cut::End);
            write(&format!("\r{text}\x1b[K"));
            self.last = Some(Instant::now());
        } else if self.last.is_none_or(|last| last.elapsed() >= EVERY) {
            remark(text);
            self.last = Some(Instant::now());
        }
    }

    /// Removes the line of a terminal.
    pub(super) fn end(&self) {
        if self.last.is_some() && io::stderr().is_terminal() {
            write("\r\x1b[K");
        }
    }
}

/// To standard error, ignored where it is closed.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
