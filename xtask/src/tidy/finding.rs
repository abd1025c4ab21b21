//! What rules look at, and what they find.

use std::fmt;

/// A text of the checkout.
pub(super) struct Source {
    /// Its path below the top of the checkout.
    pub(super) path: String,
    /// Its content.
    pub(super) text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The file at fault, below the top of the checkout.
    pub(super) path: String,
    /// The line at fault, from 1; 0 where the file as a whole is meant.
    pub(super) line: usize,
    /// The problem.
    pub(super) message: String,
}

impl Finding {
    pub(super) fn new(source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: source.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}
