//! Prefixes of the outer source addresses of tunnels.

use lb_common::{decap::MAX_ENTRIES, service::Mode};

use super::findings::{Findings, Place, unusable, unusable_prefix};
use crate::state::{guard::Prefix, service::Service};

/// Most prefixes of balancers.
const MAX_SOURCES: usize = MAX_ENTRIES as usize;

impl Findings {
    pub(super) fn tunnel_sources(&mut self, prefixes: &[Prefix], services: &[&Service]) {
        let place = Place::Settings("tunnel_sources");
        for (index, prefix) in prefixes.iter().enumerate() {
            let is_same_family = |other: &&Prefix| other.address().is_ipv4() == prefix.address().is_ipv4();
            if let Some(other) = prefixes[..index].iter().find(is_same_family) {
                self.conflict(
                    place,
                    format!("tunnel_sources has {other} and {prefix}, which are of one family"),
                    "leave one prefix for each family",
                );
            }
            if let Some(why) = unusable(prefix.address()) {
                self.invalid(
                    place,
                    format!("{prefix} is no source of packets: its first address {why}"),
                    "use a prefix that is routed to this machine",
                );
            }
            self.tunnel_source(place, *prefix, services);
        }
    }

    /// Balancers whose tunnels end here.
    pub(super) fn decap_from(&mut self, prefixes: &[Prefix]) {
        let place = Place::Settings("decap_from");
        for (index, prefix) in prefixes.iter().enumerate() {
            if let Some(why) = unusable_prefix(*prefix) {
                self.invalid(
                    place,
                    format!("{prefix} in decap_from {why}"),
                    "name the addresses of the balancers, or their tunnel_sources",
                );
            }
            if prefixes[..index].contains(prefix) {
                self.conflict(place, format!("{prefix} is listed twice in decap_from"), "");
            }
        }
        if prefixes.len() > MAX_SOURCES {
            let what = format!(
                "{} prefixes in decap_from are more than the {MAX_SOURCES} that fit",
                prefixes.len()
            );
            self.invalid(place, what, "use shorter prefixes");
        }
    }

    /// A backend drops packets with one of its own addresses as source.
    fn tunnel_source(&mut self, place: Place, prefix: Prefix, services: &[&Service]) {
        const HINT: &str = "use a prefix that no service and no backend is in";
        for service in services {
            if prefix.overlaps(service.key.prefix()) {
                let vip = service.key.address_text();
                let what = format!("{prefix} has the address {vip} of service {}", service.name);
                self.conflict(place, what, HINT);
                return;
            }
            let mut backends = service.backends.iter();
            let own = backends.find(|backend| {
                let mode = backend.mode.unwrap_or(service.mode);
                matches!(mode, Mode::Ipip | Mode::Gue) && prefix.contains(backend.address.ip())
            });
            if let Some(backend) = own {
                let what = format!(
                    "{prefix} has the address {} of backend {}/{}",
                    backend.address.ip(),
                    service.name,
                    backend.name
                );
                self.conflict(place, what, HINT);
                return;
            }
        }
    }
}
