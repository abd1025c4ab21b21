//! A host name, as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host name whose addresses are backends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name, which its backends have as `discovered_by`.
    pub name: String,
    /// Host name and port.
    pub address: String,
    /// Backends that it has now.
    pub backends: usize,
    /// Whether the latest look-up was answered.
    pub resolved: bool,
    /// Why it was not.
    pub error: Option<String>,
    /// Since when look-ups fail, RFC 3339.
    pub failing_since: Option<String>,
    /// Addresses of the latest answer that are no backends, each with the reason.
    pub unused: Vec<String>,
    /// Why its latest answer was refused as a whole.
    pub refused: Option<String>,
}
