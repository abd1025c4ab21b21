//! Errors with their place in the file.

use std::fmt;

use super::Span;

/// Something wrong at a place of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// `FILE:LINE:COLUMN: error: what: why`, and a second line with the hint where there is one.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            hint,
        } = self;
        write!(f, "{file}:{line}:{column}: error: {message}")?;
        match hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Collects errors and knows where lines begin.
pub(super) struct Reporter<'a> {
    text: &'a str,
    file: &'a str,
    errors: Vec<(usize, ConfigError)>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self {
            text,
            file,
            errors: Vec::new(),
        }
    }

    /// Line and column of a byte.
    pub(super) fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte.min(self.text.len())).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let (line, column) = self.position(span.start);
        let error = ConfigError {
            file: self.file.to_owned(),
            line,
            column,
            message: message.into(),
            hint,
        };
        self.errors.push((span.start, error));
    }

    /// Fails with all errors so far, in the order of the file.
    pub(super) fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by_key(|(start, _)| *start);
        Err(errors.into_iter().map(|(_, error)| error).collect())
    }
}
