//! Guard tables.

use std::collections::HashSet;

use lb_common::{budget::MAX_RATE, limits::MAX_GUARD_PREFIXES, service::Mode};

use super::findings::{Findings, Place};
use crate::state::{
    guard::{Guard, Prefix, Rate},
    service::{Protocol, Service},
    words::Word as _,
};

impl Findings {
    pub(super) fn guard(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Guard(index, key);
        let Guard {
            allow,
            deny,
            new_flows,
            source_new_flows,
            source_bits,
        } = &service.guard;
        self.prefixes(at("allow"), service, allow);
        self.prefixes(at("deny"), service, deny);
        self.rate(index, service, ["new_flows", "new_flows_burst"], *new_flows);
        let of_source = ["source_new_flows", "source_new_flows_burst"];
        self.rate(index, service, of_source, *source_new_flows);
        let most = if service.key.address.is_ipv4() { 32 } else { 128 };
        if *source_bits > most {
            self.invalid(
                at("source_bits"),
                format!("source_bits {source_bits} is more than the {most} bits of an address"),
                format!("from 1 to {most}"),
            );
        }
        if *source_bits != 0 && source_new_flows.per_second == 0 {
            self.invalid(
                at("source_bits"),
                "source_bits means nothing without source_new_flows",
                "add source_new_flows, or leave it out",
            );
        }
    }

    fn rate(&mut self, index: usize, service: &Service, [key, burst_key]: [&'static str; 2], rate: Rate) {
        let Rate { per_second, burst } = rate;
        for (key, number) in [(key, per_second), (burst_key, burst)] {
            if number > MAX_RATE {
                let what = format!("{key} {number} is more than {MAX_RATE}");
                self.invalid(Place::Guard(index, key), what, "0 is no limit");
            }
        }
        if burst != 0 && per_second == 0 {
            self.invalid(
                Place::Guard(index, burst_key),
                format!("{burst_key} means nothing without {key}"),
                format!("add {key}, or leave it out"),
            );
        }
        let backends = service.backends.iter();
        let stateless = backends
            .map(|backend| backend.mode.unwrap_or(service.mode))
            .chain([service.mode])
            .find(|mode| *mode != Mode::Nat);
        if per_second != 0
            && service.key.protocol == Protocol::Udp
            && let Some(mode) = stateless
        {
            self.invalid(
                Place::Guard(index, key),
                format!(
                    "{key} cannot be held in mode {}, which does not know when a flow of UDP begins",
                    mode.word()
                ),
                "use mode nat, or leave it out",
            );
        }
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
            let vip = service.key;
            if prefix.address().is_ipv4() != vip.address.is_ipv4() {
                let family = |v4| if v4 { "IPv4" } else { "IPv6" };
                let what = format!(
                    "prefix {prefix} is {}, and clients of service {} on {} are {}",
                    family(prefix.address().is_ipv4()),
                    service.name,
                    vip.address_text(),
                    family(vip.address.is_ipv4())
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
