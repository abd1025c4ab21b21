//! Host names that stand for backends, and the backends found by them.

use std::collections::HashSet;

use super::findings::{Findings, Place};
use crate::state::{backend::Admin, names::BackendName, service::Service};

impl Findings {
    pub(super) fn hosts(&mut self, index: usize, service: &Service) {
        let mut names: HashSet<&BackendName> = service.backends.iter().map(|backend| &backend.name).collect();
        for (place, host) in service.hosts.iter().enumerate() {
            let at = |key| Place::Host(index, place, key);
            let name = format!("{}/{}", service.name, host.name);
            if !names.insert(&host.name) {
                self.conflict(
                    at("name"),
                    format!("backend {name} is defined twice"),
                    "rename one of them",
                );
            }
            if host.drain_until.is_some() && host.admin != Admin::Draining {
                self.invalid(
                    at("drain_until"),
                    format!("backend {name} has an end of its drain, but does not drain"),
                    "set admin = \"draining\", or leave drain_until out",
                );
            }
            let keeps_port = service.key.port == 0 || !service.ports.is_empty();
            if host.port == 0 && !keeps_port {
                self.invalid(
                    at("address"),
                    format!("backend {name} has no port"),
                    "set it; only where the service has several ports (ports, or port 0) packets may keep theirs",
                );
            }
        }
        for (place, backend) in service.backends.iter().enumerate() {
            let Some(host) = &backend.discovered_by else {
                continue;
            };
            if !service.hosts.iter().any(|there| there.name == *host) {
                self.invalid(
                    Place::Backend(index, place, "discovered_by"),
                    format!(
                        "service {} has no backend {host} with a host name, which backend {} is an address of",
                        service.name, backend.name
                    ),
                    "add it, or leave discovered_by out to keep the backend at its address",
                );
            }
        }
    }
}
