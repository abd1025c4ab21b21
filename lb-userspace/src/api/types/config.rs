//! What the API says about the configuration file.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the running state stands to the configuration file. Lines of differences begin with `+`, `-` or `~`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ConfigState {
    /// The file that the daemon was started with.
    pub file: Option<String>,
    /// Whether the running state is just what that file says.
    pub in_force: bool,
    /// What commands have changed since a file was applied: it outlives restarts, until a changed file comes.
    pub by_command: Vec<String>,
    /// What a restart or SIGHUP would change, since the file has changed after it was applied.
    pub pending: Vec<String>,
}
