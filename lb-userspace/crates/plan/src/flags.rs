//! Flags of the settings: what all services together need.

use crate::{programmed::Programmed, state::service::ServiceKey, target::content::Target};

/// What the settings say about all services.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) wildcard: bool,
    pub(super) dnat: bool,
    pub(super) prefix_services: bool,
    pub(super) ends_tunnels: bool,
}

impl Flags {
    /// What a target needs, with or without replies of mode `dnat`.
    pub(super) fn wanted(target: &Target, has_replies: bool) -> Self {
        Self {
            // A prefix has its own wildcard.
            wildcard: target
                .services
                .keys()
                .any(|key| key.port == 0 && !key.is_prefix()),
            dnat: has_replies,
            prefix_services: target.services.keys().any(ServiceKey::is_prefix),
            ends_tunnels: !target.tunnel_ends.is_empty(),
        }
    }

    /// As they stand.
    pub(super) const fn programmed(programmed: &Programmed) -> Self {
        Self {
            wildcard: programmed.wildcard,
            dnat: programmed.dnat,
            prefix_services: programmed.prefix_services,
            ends_tunnels: programmed.ends_tunnels,
        }
    }

    /// Those that are set here or there.
    pub(super) const fn or(self, other: Self) -> Self {
        Self {
            wildcard: self.wildcard || other.wildcard,
            dnat: self.dnat || other.dnat,
            prefix_services: self.prefix_services || other.prefix_services,
            ends_tunnels: self.ends_tunnels || other.ends_tunnels,
        }
    }
}
