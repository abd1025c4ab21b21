//! Clients whose new flows go to a group of a service's backends, as the operator wants it.

use super::{guard::Prefix, names::GroupName};

/// Clients of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clients {
    /// The group of backends that they go to.
    pub group: GroupName,
    /// Their prefixes; of several prefixes that contain a client, the longest decides.
    pub from: Vec<Prefix>,
}
