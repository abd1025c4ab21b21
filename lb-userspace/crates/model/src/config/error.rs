//! Errors with their place in the file.

use std::{cell::OnceCell, collections::BTreeMap, fmt, ops::Range};

/// Bytes of a text.
pub(super) type Span = Range<usize>;

/// An error at a place of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The problem and its reason.
    pub message: String,
    /// The remedy.
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

/// Number of errors to keep, the first ones of the file. A text may have millions.
pub const MAX_ERRORS: usize = 100;

/// Collects errors and knows where lines begin.
pub(super) struct Reporter<'a> {
    text: &'a str,
    file: &'a str,
    /// Start of each line in bytes; filled with the first error.
    lines: OnceCell<Vec<usize>>,
    /// Number of all errors, kept or not.
    count: usize,
    /// By place, and by turn at the same place.
    errors: BTreeMap<(usize, usize), ConfigError>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self {
            text,
            file,
            lines: OnceCell::new(),
            count: 0,
            errors: BTreeMap::new(),
        }
    }

    /// The name of the file.
    pub(super) fn file(&self) -> &str {
        self.file
    }

    /// Line and column of a byte.
    pub(super) fn position(&self, byte: usize) -> (usize, usize) {
        let starts = self.lines.get_or_init(|| {
            let newlines = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(newlines).collect()
        });
        let byte = byte.min(self.text.len());
        let line = starts.partition_point(|start| *start <= byte);
        let start = starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(start..byte).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.count += 1;
        if self.errors.len() >= MAX_ERRORS {
            match self.errors.last_key_value() {
                Some((last, _)) if *last > (span.start, self.count) => self.errors.pop_last(),
                _ => return,
            };
        }
        let (line, column) = self.position(span.start);
        let error = ConfigError {
            file: self.file.to_owned(),
            line,
            column,
            message: message.into(),
            hint,
        };
        self.errors.insert((span.start, self.count), error);
    }

    /// Fails with the first [`MAX_ERRORS`] errors so far, in the order of the file; the last one counts the rest.
    pub(super) fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let more = self.count - self.errors.len();
        let mut errors: Vec<_> = std::mem::take(&mut self.errors).into_values().collect();
        if let Some(last) = errors.last_mut().filter(|_| more > 0) {
            last.hint = Some(match last.hint.take() {
                Some(hint) => format!("{hint}; {more} more errors follow this one"),
                None => format!("{more} more errors follow this one"),
            });
        }
        Err(errors)
    }
}
