//! Constraints of mode `dnat` on backends: the source of a reply must identify its service.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::findings::{Findings, Place};
use crate::state::{
    endpoints,
    service::{Protocol, Service},
};

impl Findings {
    /// Finds endpoints that two services share, and endpoints whose replies do not identify the service's port.
    pub(super) fn endpoints(&mut self, services: &[&Service]) {
        // Endpoints of an address, by port, with the first service that has each.
        let mut taken: HashMap<(IpAddr, Protocol), BTreeMap<u16, &Service>> = HashMap::new();
        let all = services.iter().enumerate().flat_map(|(index, service)| {
            let backends = service.backends.iter().enumerate();
            backends.map(move |(place, backend)| (index, *service, place, backend))
        });
        // A backend that a host name found gives way to one from the file.
        let (written, found): (Vec<_>, Vec<_>) =
            all.partition(|(_, _, _, backend)| backend.discovered_by.is_none());
        for (index, service, place, backend) in written.into_iter().chain(found) {
            let Some(endpoint) = endpoints::endpoint(service, backend) else {
                continue;
            };
            let at = Place::Backend(index, place, "address");
            if !service.ports.is_empty() {
                let what = format!(
                    "backend {}/{} is in mode dnat, and its service has several ports: replies would not tell which one \
                     they are of",
                    service.name, backend.name
                );
                self.invalid(at, what, "use one service for each port, port 0, or mode nat");
            }
            if service.key.port == 0 && endpoint.port() != 0 {
                let what = format!(
                    "backend {}/{} has a port, and its service has every port: in mode dnat its replies would not tell \
                     which one they are of",
                    service.name, backend.name
                );
                self.invalid(
                    at,
                    what,
                    "give it port 0, which keeps the packet's own, or use mode nat",
                );
            }
            let ports = taken.entry((endpoint.ip(), service.key.protocol)).or_default();
            let other = if endpoint.port() == 0 {
                ports.values().find(|other| other.name != service.name)
            } else {
                let same = ports.get(&endpoint.port()).into_iter().chain(ports.get(&0));
                same.into_iter().find(|other| other.name != service.name)
            };
            if let Some(other) = other {
                let what = format!(
                    "backend {}/{} shares {endpoint} with service {}: in mode dnat a reply from there could belong to \
                     either",
                    service.name, backend.name, other.name
                );
                self.conflict(at, what, "use mode nat, or another port");
            }
            ports.entry(endpoint.port()).or_insert(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::service::Mode;

    use crate::{
        health::settings::CheckKind,
        state::{
            check::{Place, ProblemKind, problems},
            desired::Settings,
            service::Protocol,
            testing,
        },
    };

    /// Two services, each with port, protocol, mode, and mode and port of its backend at the same address; and the problem found.
    #[test]
    fn no_reply_may_belong_to_two_services() {
        use Mode::{Dnat, Ipip, Nat};
        use Protocol::{Tcp, Udp};
        let conflict = |service| Some((Place::Backend(service, 0, "address"), ProblemKind::Conflict));
        let invalid = |service| Some((Place::Backend(service, 0, "address"), ProblemKind::Invalid));
        type Row = (u16, Protocol, Mode, Option<Mode>, u16);
        type Found = Option<(Place, ProblemKind)>;
        let cases: [(Row, Row, Found); 11] = [
            (
                (80, Tcp, Dnat, None, 8080),
                (81, Tcp, Dnat, None, 8080),
                conflict(1),
            ),
            (
                (80, Tcp, Dnat, None, 8080),
                (81, Tcp, Nat, Some(Dnat), 8080),
                conflict(1),
            ),
            (
                (80, Tcp, Dnat, None, 8080),
                (81, Tcp, Dnat, Some(Nat), 8080),
                None,
            ),
            ((80, Tcp, Dnat, None, 8080), (81, Tcp, Ipip, None, 8080), None),
            ((80, Tcp, Dnat, None, 8080), (81, Tcp, Dnat, None, 8081), None),
            ((80, Tcp, Dnat, None, 8080), (80, Udp, Dnat, None, 8080), None),
            ((80, Tcp, Dnat, None, 8080), (0, Tcp, Dnat, None, 0), conflict(1)),
            ((0, Tcp, Dnat, None, 0), (80, Tcp, Dnat, None, 8080), conflict(1)),
            ((0, Tcp, Dnat, None, 0), (0, Tcp, Dnat, None, 0), conflict(1)),
            ((0, Tcp, Dnat, None, 0), (0, Udp, Dnat, None, 0), None),
            ((0, Tcp, Dnat, None, 8080), (80, Tcp, Nat, None, 8080), invalid(0)),
        ];
        for (first, second, expected) in cases {
            let services = [("a", 1, first), ("b", 2, second)].map(|(name, last, row)| {
                let (port, protocol, mode, own, backend_port) = row;
                let mut service = testing::service(name, last, &[("x", 1)]);
                (service.key.port, service.key.protocol, service.mode) = (port, protocol, mode);
                service.backends[0].mode = own;
                service.backends[0].address = (std::net::Ipv4Addr::new(10, 0, 0, 1), backend_port).into();
                service.health.kind = CheckKind::None;
                service
            });
            let found = problems(&Settings::default(), &services.each_ref());
            let places: Vec<_> = found
                .iter()
                .map(|problem| (problem.place, problem.kind))
                .collect();
            assert_eq!(
                places,
                expected.into_iter().collect::<Vec<_>>(),
                "{first:?} {second:?}: {found:?}"
            );
        }
    }
}
