//! ACLs and rate limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// ACLs and rate limits of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Guard {
    /// Prefixes of clients that may send, and none but them; empty: all.
    pub allow: Vec<String>,
    /// Prefixes of clients that may not.
    pub deny: Vec<String>,
    /// New flows a second; 0: no limit.
    pub new_flows: u32,
    /// New flows at once; 0: as many as in a second.
    pub new_flows_burst: u32,
    /// New flows a second of each source; 0: no limit.
    pub source_new_flows: u32,
    /// New flows at once of each source; 0: as many as in a second.
    pub source_new_flows_burst: u32,
    /// First bits of a client's address that make it a source; 0: 32 of IPv4, 64 of IPv6.
    pub source_bits: u8,
}
