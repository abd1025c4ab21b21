//! Drops by reason.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Packets of one reason that no backend got.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drops {
    /// Name of the reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}
