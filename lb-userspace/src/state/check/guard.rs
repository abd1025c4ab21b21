//! Guard tables.

use std::collections::HashSet;

use lb_common::limits::MAX_GUARD_PREFIXES;

use super::{Findings, Place};
use crate::state::{
    guard::{Guard, Prefix},
    service::Service,
};

impl Findings {
    pub(super) fn guard(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Guard(index, key);
        let Guard { allow, deny } = &service.guard;
        self.prefixes(at("allow"), service, allow);
        self.prefixes(at("deny"), service, deny);
    }

    fn prefixes(&mut self, place: Place, service: &Service, prefixes: &[Prefix]) {
        let mut seen = HashSet::new();
        for prefix in prefixes {
            if !seen.insert(prefix) {
                self.conflict(
                    place,
                    format!("prefix {prefix} is listed twice"),
                    "remove one of them",
                );
            }
            let vip = service.key.address;
            if prefix.address().is_ipv4() != vip.is_ipv4() {
                let family = |v4| if v4 { "IPv4" } else { "IPv6" };
                let what = format!(
                    "prefix {prefix} is {}, and clients of service {} on {vip} are {}",
                    family(prefix.address().is_ipv4()),
                    service.name,
                    family(vip.is_ipv4())
                );
                self.invalid(place, what, "remove it");
            }
        }
    }

    /// All guards together.
    pub(super) fn guards(&mut self, services: &[&Service]) {
        let mut prefixes = 0_usize;
        let most = MAX_GUARD_PREFIXES as usize;
        for (index, service) in services.iter().enumerate() {
            let before = prefixes;
            prefixes += service.guard.allow.len() + service.guard.deny.len();
            if before <= most && prefixes > most {
                self.invalid(
                    Place::Guard(index, "deny"),
                    format!("more than the {most} prefixes of all services that fit"),
                    "",
                );
            }
        }
    }
}
