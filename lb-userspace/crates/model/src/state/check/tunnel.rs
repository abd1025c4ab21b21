//! Prefixes of the outer source addresses of tunnels.

use lb_common::service::Mode;

use super::{Findings, Place, unusable};
use crate::state::{guard::Prefix, service::Service};

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
