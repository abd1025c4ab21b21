//! Clients that go to groups of backends.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Clients that go to a group of backends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Clients {
    /// The group.
    pub group: String,
    /// Prefixes of the clients.
    pub from: Vec<String>,
    /// Which backends take their new flows: `group`, `general` (the backends that are of no group of clients), `all`, or `none`.
    pub taken_by: String,
}
