//! Names of services and backends: checked once, then carried in their own types. Copies share the text.

use std::{fmt, str::FromStr, sync::Arc};

/// Longest name, in bytes.
pub const MAX_NAME_LEN: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("a name must not be empty")]
    Empty,
    /// Over [`MAX_NAME_LEN`].
    #[error("\"{0}\" is longer than {MAX_NAME_LEN} characters")]
    TooLong(String),
    /// It has a character that names cannot have.
    #[error("\"{name}\" contains {character:?}; letters, digits, '-', '_' and '.' are allowed")]
    Character {
        /// The whole text.
        name: String,
        /// The first such character.
        character: char,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// Name of a service, unique on this balancer.
    ServiceName
);
name!(
    /// Name of a backend, unique within its service.
    BackendName
);
name!(
    /// Name of a group of a service's backends.
    GroupName
);

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(text.to_owned()));
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.chars().find(|c| !allowed(c)) {
        Some(character) => Err(NameError::Character {
            name: text.to_owned(),
            character,
        }),
        None => Ok(()),
    }
}
