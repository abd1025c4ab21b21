//! Why a text is not a value.

/// Why a text is not a value of the expected kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// The problem.
    pub message: String,
    /// The remedy; empty: none.
    pub hint: Option<String>,
}

impl ValueError {
    /// An error; an empty `hint` adds no remedy.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
        }
    }
}
