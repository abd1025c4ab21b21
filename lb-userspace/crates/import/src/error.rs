//! Why a source cannot be imported.

use std::rc::Rc;

/// Why a source cannot be imported.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("{file}: {why}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        why: String,
    },
    /// The text breaks the rules of its format.
    #[error("{file}:{line}: {what}")]
    Syntax {
        /// The file.
        file: Rc<str>,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Its kind is not known.
    #[error("{file}: no configuration of HAProxy, keepalived or IPVS is recognized in it")]
    Unknown {
        /// The file.
        file: String,
    },
    /// There is nothing that `lb` could do.
    #[error("{file}: nothing can be imported: {why}")]
    Nothing {
        /// The file.
        file: String,
        /// Why not.
        why: String,
        /// The remedy.
        hint: String,
    },
}

impl ImportError {
    pub(crate) fn syntax(file: &Rc<str>, line: usize, what: impl Into<String>) -> Self {
        Self::Syntax {
            file: Rc::clone(file),
            line,
            what: what.into(),
        }
    }

    /// The remedy.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unknown { .. } => Some("name the kind: --from haproxy, --from keepalived or --from ipvs"),
            Self::Nothing { hint, .. } => Some(hint),
            Self::Read { .. } | Self::Syntax { .. } => None,
        }
    }
}
