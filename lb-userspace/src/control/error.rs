//! Why a change was not made.

use std::net::IpAddr;

use crate::{
    config::{ConfigError, change::RequestError},
    datapath::ProgramError,
    state::{
        change::ChangeError,
        desired::Revision,
        names::{BackendName, ServiceName},
        removals::Removals,
        store::StoreError,
        stored::NoServices,
    },
};

/// Why a change was not made. The state before it is still in force.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The caller has seen another state than the present one.
    #[error("the desired state is at revision {}, not at {}", present.0, expected.0)]
    Moved {
        /// The revision that the caller expected.
        expected: Revision,
        /// The revision in force.
        present: Revision,
    },
    /// It cannot be made of the desired state.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// It is a file that would remove every service.
    #[error("{refused}{}", having(*.flows))]
    NoServices {
        /// What the file lacks.
        refused: NoServices,
        /// Flows under way that would end, when last counted.
        flows: u64,
    },
    /// It removes so much that it has to be confirmed.
    #[error("it would remove {removals}{}; nothing was changed", ending(*.flows))]
    Unconfirmed {
        /// What it removes.
        removals: Removals,
        /// Flows under way that it moves or ends, when last counted.
        flows: u64,
    },
    /// Its values make no sense.
    #[error("{}", list(.0))]
    Values(Vec<ConfigError>),
    /// A backend would be the balancer's own machine.
    #[error(
        "backend {service}/{backend}: {address} is an address of this machine, which its own program cannot send to"
    )]
    OwnAddress {
        /// The backend's service.
        service: ServiceName,
        /// The backend.
        backend: BackendName,
        /// Its address.
        address: IpAddr,
    },
    /// It could not be saved.
    #[error("cannot save the desired state")]
    Save(#[from] StoreError),
    /// It could not be programmed.
    #[error("cannot program the data plane")]
    Program(#[from] ProgramError),
    /// The change could not be programmed, and the saved state could not be restored: a restart would try the change
    /// again.
    #[error("cannot program the data plane: {program}; cannot undo the saved change either")]
    NotTakenBack {
        /// Why it could not be programmed.
        program: ProgramError,
        /// Why it could not be taken back.
        #[source]
        save: StoreError,
    },
    /// A task of the daemon died while it worked on the change.
    #[error("an internal task failed: {0}")]
    Internal(String),
    /// The daemon is leaving.
    #[error("the daemon is shutting down")]
    Closed,
}

impl From<RequestError> for ControlError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Change(error) => Self::Change(error),
            RequestError::Values(errors) => Self::Values(errors),
            RequestError::Internal(message) => Self::Internal(message),
        }
    }
}

impl ControlError {
    /// The remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Moved { .. } => Some("check what has changed, then retry with the present revision".into()),
            Self::Change(error) => error.hint().map(str::to_owned),
            Self::NoServices { .. } => Some("`--allow-empty` removes them all (`allow_empty` in the API)".into()),
            Self::Unconfirmed { .. } => Some(
                "if that is meant, confirm it: `--yes` (`allow_removals` in the API); `--dry-run` shows all that changes"
                    .into(),
            ),
            Self::Values(errors) => errors.iter().find_map(|error| error.hint.clone()),
            Self::OwnAddress { .. } => {
                Some("a backend must be another machine, or have a network namespace of its own".into())
            }
            Self::Save(error) | Self::NotTakenBack { save: error, .. } => Some(error.hint()),
            Self::Program(_) => Some("nothing was changed; `lb status` shows what is programmed".into()),
            Self::Internal(_) => Some("see the daemon's log".into()),
            Self::Closed => None,
        }
    }
}

impl From<NoServices> for ControlError {
    fn from(refused: NoServices) -> Self {
        Self::NoServices { refused, flows: 0 }
    }
}

/// Flows under way that services have, as the rest of a sentence.
fn having(flows: u64) -> String {
    match flows {
        0 => String::new(),
        1 => ", with 1 established flow".to_owned(),
        flows => format!(", with {flows} established flows"),
    }
}

/// What happens to flows under way, as the rest of a sentence.
pub(super) fn ending(flows: u64) -> String {
    match flows {
        0 => String::new(),
        1 => ", and move or end 1 established flow".to_owned(),
        flows => format!(", and move or end {flows} established flows"),
    }
}

fn list(errors: &[ConfigError]) -> String {
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    messages.join("; ")
}
