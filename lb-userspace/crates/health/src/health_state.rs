//! The health state of a backend.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The health state of a backend, by its checks. It is independent of the operator's settings (drain, disable).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Checks succeed.
    Up,
    /// Checks fail.
    Down,
    /// No check has given a result yet, or the backend has no checks.
    #[default]
    Unchecked,
}

impl Health {
    /// The word that commands, events and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
