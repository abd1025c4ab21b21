//! The configuration file in the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the running state stands to the configuration file. Lines of differences begin with `+`, `-` or `~`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ConfigState {
    /// The file that the daemon was started with.
    pub file: Option<String>,
    /// Whether the running state equals that file.
    pub in_force: bool,
    /// Whether the file is in force: as it is, or with services made by command where it lists none.
    pub file_in_force: bool,
    /// Changes made by command since a file was applied. They outlive restarts, until a changed file is read.
    pub by_command: Vec<String>,
    /// Changes that a restart or SIGHUP would bring, since the file was edited after it was applied.
    pub pending: Vec<String>,
}
