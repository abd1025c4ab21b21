//! Constraints of a desired state beyond the types of its fields: one place for the file, the command line, the
//! API and the store. Reports all problems, not only the first.

mod agent;
mod clients;
mod endpoints;
mod findings;
mod guard;
mod health;
mod hosts;
mod quic;
mod service;
mod through;
mod tunnel;

pub use self::{
    findings::{LONGEST, Place, Problem, ProblemKind, unusable},
    health::health_problems,
};

use std::{collections::HashMap, net::IpAddr, time::Duration};

use lb_common::limits::{MAX_BACKENDS, MAX_SERVICES, MAX_SNAT_ADDRESSES};

use self::findings::Findings;
use super::{
    desired::Settings,
    ports::MAX_PORTS,
    service::{Service, ServiceKey},
    words::Word as _,
};

/// All problems of these settings and services.
pub fn problems(settings: &Settings, services: &[&Service]) -> Vec<Problem> {
    problems_of(settings, services, |_| true)
}

/// As [`problems`], but checks the values of a service by itself only for the `changed` ones.
pub fn problems_of(
    settings: &Settings,
    services: &[&Service],
    changed: impl Fn(&Service) -> bool,
) -> Vec<Problem> {
    let mut found = Findings::default();
    found.settings(settings, services);
    found.between_services(services);
    found.guards(services);
    found.all_clients(services);
    found.endpoints(services);
    let changed = services
        .iter()
        .enumerate()
        .filter(|(_, service)| changed(service));
    for (index, service) in changed {
        found.service(index, service);
        found.guard(index, service);
        found.health(index, &service.health);
        found.breaker(index, service);
        found.through(index, service);
        found.agent(index, service);
        found.clients(index, service);
        found.quic(index, service);
        found.backends(index, service);
        found.hosts(index, service);
    }
    found.problems
}

impl Findings {
    fn settings(&mut self, settings: &Settings, services: &[&Service]) {
        let Settings {
            snat_addresses,
            snat_ports,
            tunnel_sources,
            gue_port,
            decap_from,
            transition,
        } = settings;
        if *snat_ports.start() == 0 || snat_ports.is_empty() {
            let what = format!(
                "snat_ports \"{}-{}\" is no range of ports",
                snat_ports.start(),
                snat_ports.end()
            );
            self.invalid(
                Place::Settings("snat_ports"),
                what,
                "write it as \"first-last\", for example \"1024-32767\"",
            );
        }
        self.duration(
            Place::Settings("transition"),
            "transition",
            *transition,
            Duration::from_secs(1)..=LONGEST,
        );

        if *gue_port == 0 {
            self.invalid(
                Place::Settings("gue_port"),
                "gue_port 0 is no port that packets can be sent to",
                "leave it out for 6080, or set the port that backends expect",
            );
        }
        self.tunnel_sources(tunnel_sources, services);
        self.decap_from(decap_from);
        let place = Place::Settings("snat_addresses");
        for (index, address) in snat_addresses.iter().enumerate() {
            if let Some(why) = unusable(*address) {
                self.invalid(place, format!("source NAT address {address} {why}"), "");
            }
            if snat_addresses[..index].contains(address) {
                self.conflict(place, format!("source NAT address {address} is listed twice"), "");
            }
            for service in services
                .iter()
                .filter(|service| service.key.has_address(*address))
            {
                if service.key.port == 0 || service.all_ports().any(|port| snat_ports.contains(&port)) {
                    let what = format!(
                        "source NAT address {address} is that of service {}, whose port lies in snat_ports: \
                         replies of backends would be taken for requests of clients",
                        service.name
                    );
                    self.conflict(
                        place,
                        what,
                        "use an address without services, or keep their ports out of snat_ports",
                    );
                }
            }
        }
        for (family, name) in [
            (IpAddr::is_ipv4 as fn(&IpAddr) -> bool, "IPv4"),
            (IpAddr::is_ipv6, "IPv6"),
        ] {
            let count = snat_addresses.iter().filter(|address| family(address)).count();
            if count > MAX_SNAT_ADDRESSES as usize {
                let what = format!(
                    "{count} {name} source NAT addresses are more than the {MAX_SNAT_ADDRESSES} that fit"
                );
                self.invalid(place, what, "");
            }
        }
    }

    fn between_services(&mut self, services: &[&Service]) {
        if services.len() > MAX_SERVICES as usize {
            let what = format!(
                "{} services are more than the {MAX_SERVICES} that fit",
                services.len()
            );
            self.invalid(Place::Service(MAX_SERVICES as usize, "name"), what, "");
        }
        let mut backends = 0_usize;
        let mut keys: HashMap<ServiceKey, &Service> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            self.keys(index, service, &mut keys);
            let before = backends;
            backends += service.backends.len();
            let most = MAX_BACKENDS as usize - 1;
            if before <= most && backends > most {
                self.invalid(
                    Place::Service(index, "backend"),
                    format!("more than the {most} backends that fit"),
                    "",
                );
            }
        }
    }

    /// Enters the address, ports and protocol of a service; no other service may have them.
    fn keys<'a>(&mut self, index: usize, service: &'a Service, keys: &mut HashMap<ServiceKey, &'a Service>) {
        // Beyond the limit, further ports would only repeat the error.
        let before = keys.len();
        for port in service.all_ports().take(MAX_PORTS) {
            let key = ServiceKey { port, ..service.key };
            let Some(other) = keys.insert(key, service) else {
                continue;
            };
            if other.name == service.name {
                let what = format!("ports of service {} has {port} twice", service.name);
                self.conflict(Place::Service(index, "ports"), what, "remove one of them");
            } else {
                let what = format!(
                    "service {} overlaps service {}: both are {} port {port} of {}",
                    service.name,
                    other.name,
                    key.protocol.word(),
                    key.address_text()
                );
                let hint = "give one of them another address or port";
                self.conflict(Place::Service(index, "address"), what, hint);
            }
            // One error for all ports of a range that overlap.
            return;
        }
        let most = MAX_SERVICES as usize;
        if before <= most && keys.len() > most && index < most {
            let what = format!("more than the {most} ports of all services that fit");
            self.invalid(
                Place::Service(index, "ports"),
                what,
                "give port 0, which is every port",
            );
        }
    }
}
