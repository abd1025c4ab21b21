//! Clients that go to groups of backends.

use std::collections::{HashMap, HashSet};

use lb_common::limits::{MAX_CLIENT_PREFIXES, MAX_GROUPS};

use super::findings::{Findings, Place};
use crate::state::{guard::Prefix, names::GroupName, service::Service};

impl Findings {
    pub(super) fn clients(&mut self, index: usize, service: &Service) {
        let (mut named, mut owners) = (HashSet::new(), HashMap::<Prefix, &GroupName>::new());
        for (place, clients) in service.clients.iter().enumerate() {
            let at = |key| Place::Clients(index, place, key);
            let group = &clients.group;
            if !named.insert(group) {
                self.conflict(
                    at("group"),
                    format!(
                        "service {} has two tables of clients for group {group}",
                        service.name
                    ),
                    "list all prefixes of the group in one of them",
                );
            }
            if clients.from.is_empty() {
                self.invalid(
                    at("from"),
                    format!("no client of service {} goes to group {group}", service.name),
                    "list prefixes of clients, or remove the table",
                );
            }
            for prefix in &clients.from {
                if let Some(other) = owners.insert(*prefix, group) {
                    self.conflict(
                        at("from"),
                        format!(
                            "clients {prefix} of service {} go to {other} and to {group}",
                            service.name
                        ),
                        "remove one of them",
                    );
                }
            }
        }
        if named.len() > MAX_GROUPS {
            self.invalid(
                Place::Clients(index, MAX_GROUPS, "group"),
                format!(
                    "clients of service {} go to {} groups, more than the {MAX_GROUPS} that fit",
                    service.name,
                    named.len()
                ),
                "",
            );
        }
    }

    /// The prefixes of all services together.
    pub(super) fn all_clients(&mut self, services: &[&Service]) {
        let most = MAX_CLIENT_PREFIXES as usize;
        let mut prefixes = 0;
        for (index, service) in services.iter().enumerate() {
            for (place, clients) in service.clients.iter().enumerate() {
                let before = prefixes;
                prefixes += clients.from.len();
                if before <= most && prefixes > most {
                    self.invalid(
                        Place::Clients(index, place, "from"),
                        format!("more than the {most} prefixes of clients of all services that fit"),
                        "",
                    );
                }
            }
        }
    }
}
