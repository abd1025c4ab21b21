//! Services and their backends, each on its own.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use lb_common::{
    limits::{RING_SIZE_MAX, RING_SIZE_MIN},
    service::Mode,
};

use super::findings::{Findings, LONGEST, Place, unusable, unusable_prefix};
use crate::{
    duration::text,
    health::settings::CheckKind,
    state::{
        backend::{Admin, Backend},
        names::BackendName,
        ports::MAX_PORTS,
        primes,
        service::{ALL_PERCENT, Affinity, Algorithm, IdleSettings, Protocol, RingSize, Service, Tracking},
        words::{self, Word},
    },
};

/// Shortest idle timeout of a flow: the sweep runs about once a second.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// The mode of the service, and those of its backends.
fn modes(service: &Service) -> impl Iterator<Item = Mode> {
    let hosts = service.hosts.iter().map(|host| host.mode);
    let backends = service.backends.iter().map(|backend| backend.mode);
    let of_backends = backends.chain(hosts).map(|mode| mode.unwrap_or(service.mode));
    of_backends.chain([service.mode])
}

impl Findings {
    pub(super) fn service(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Service(index, key);
        // Without `..`, so that a new key asks for a look here.
        let Service {
            name,
            key,
            algorithm,
            affinity,
            ring_size,
            on_down_after,
            max_removed_percent,
            backup_below,
            slow_start,
            idle,
            // Read with others below, or by checks of their own.
            ports: _,
            mode: _,
            tracking: _,
            guard: _,
            health: _,
            agent: _,
            clients: _,
            quic: _,
            backends: _,
            hosts: _,
            // Every value works.
            on_empty: _,
            on_down: _,
        } = service;
        if let Some(why) = unusable_prefix(key.prefix()) {
            self.invalid(
                at("address"),
                format!("address {} of service {name} {why}", key.address_text()),
                "",
            );
        }
        let ports = service.port_count();
        if ports > MAX_PORTS {
            self.invalid(
                at("ports"),
                format!("service {name} has {ports} ports, more than the {MAX_PORTS} that fit"),
                "set port = 0 instead, which is every port that no other service has",
            );
        }
        if key.is_prefix() && modes(service).any(|mode| mode == Mode::Dnat) {
            self.invalid(
                at("address"),
                format!(
                    "service {name} has the addresses {}, and backends in mode dnat: a reply would not tell to which one its \
                     request went",
                    key.address_text()
                ),
                "use mode nat, l2dsr, ipip or gue, or a service for each address",
            );
        }
        if *max_removed_percent > ALL_PERCENT {
            self.invalid(
                at("max_removed_percent"),
                format!("max_removed_percent {max_removed_percent} is more than all"),
                "use 0, which lets checks take out no backend, to 100",
            );
        }
        if *backup_below == 0 {
            self.invalid(
                at("backup_below"),
                "with backup_below 0 no backup would ever take flows",
                "from 1, which calls them when no other backend can",
            );
        }
        self.duration(
            at("on_down_after"),
            "on_down_after",
            *on_down_after,
            Duration::ZERO..=LONGEST,
        );
        self.duration(
            at("slow_start"),
            "slow_start",
            *slow_start,
            Duration::ZERO..=LONGEST,
        );
        let IdleSettings {
            established,
            half_open,
            closed,
        } = *idle;
        for (key, time) in [
            ("idle_timeout", established),
            ("half_open_timeout", half_open),
            ("closed_timeout", closed),
        ] {
            let Some(time) = time else { continue };
            self.duration(at(key), key, time, SHORTEST_IDLE..=LONGEST);
            if time.subsec_nanos() != 0 {
                self.invalid(
                    at(key),
                    format!("{key} {} is not in whole seconds", text(time)),
                    "",
                );
            }
        }
        if closed.is_some() && service.key.protocol == Protocol::Udp {
            self.invalid(
                at("closed_timeout"),
                "closed_timeout means nothing to UDP, which closes nothing",
                "remove it",
            );
        }
        if *algorithm == Algorithm::RoundRobin {
            self.round_robin(at("algorithm"), service);
        }
        if *affinity == Affinity::Port && key.port != 0 && ports == 1 {
            self.invalid(
                at("affinity"),
                format!("affinity = \"port\" gives all flows of service {name}, which has one port, to one backend"),
                "give the service several ports (ports, or port = 0), or use \"source\"",
            );
        }
        if let RingSize::Slots(size) = *ring_size {
            self.ring_size(at("ring_size"), size, service.backends.len());
        }
    }

    fn round_robin(&mut self, place: Place, service: &Service) {
        let (nat, others): (Vec<Mode>, Vec<Mode>) = modes(service).partition(|mode| *mode == Mode::Nat);
        if !others.is_empty() && service.tracking == Tracking::JustEnough {
            self.invalid(
                place,
                "round-robin chooses anew for each packet of a flow that is not recorded",
                "set tracking = \"full\", or use mode nat",
            );
        }
        if !others.is_empty() && !nat.is_empty() {
            self.invalid(
                place,
                "with round-robin the backends of a service are all in mode nat, or none is",
                "give all backends one mode, or use \"maglev\"",
            );
        }
        let (flows, affinity) = match service.affinity {
            Affinity::None => return,
            Affinity::Source => ("flow of a client", service.affinity.word()),
            Affinity::Port => ("flow to a port", service.affinity.word()),
        };
        self.invalid(
            place,
            format!("round-robin gives each {flows} another backend, affinity = \"{affinity}\" the same"),
            "choose one of them",
        );
    }

    fn ring_size(&mut self, place: Place, size: u32, backends: usize) {
        let (below, above) = primes::nearest_primes(size);
        if !(RING_SIZE_MIN..=RING_SIZE_MAX).contains(&size) || below != above {
            let what = format!("ring_size {size} is not a prime from {RING_SIZE_MIN} to {RING_SIZE_MAX}");
            let hint = if below == above {
                format!("{below} is")
            } else {
                format!("{below} and {above} are")
            };
            self.invalid(place, what, hint);
        } else if backends > size as usize {
            let what = format!("ring_size {size} leaves some of {backends} backends without a slot");
            self.invalid(place, what, "use \"auto\"");
        }
    }

    pub(super) fn backends(&mut self, index: usize, service: &Service) {
        let mut names = HashSet::new();
        let mut addresses: HashMap<SocketAddr, &BackendName> = HashMap::new();
        for (place, backend) in service.backends.iter().enumerate() {
            let at = |key| Place::Backend(index, place, key);
            let full_name = format!("{}/{}", service.name, backend.name);
            if !names.insert(&backend.name) {
                self.conflict(
                    at("name"),
                    format!("backend {full_name} is defined twice"),
                    "rename one of them",
                );
            }
            if let Some(other) = addresses.insert(backend.address, &backend.name) {
                let what = format!(
                    "backend {full_name} has the address of backend {}/{other}, {}",
                    service.name, backend.address
                );
                self.conflict(
                    at("address"),
                    what,
                    "remove one of them, or raise the other's weight",
                );
            }
            self.backend(index, place, service, backend, &full_name);
        }
    }

    fn backend(&mut self, index: usize, place: usize, service: &Service, backend: &Backend, name: &str) {
        let at = |key| Place::Backend(index, place, key);
        let Backend {
            address,
            mode,
            admin,
            drain_until,
            // Read with others, by checks of their own.
            name: _,
            server_ids: _,
            agent_port: _,
            group: _,
            discovered_by: _,
            // Every value works.
            weight: _,
            backup: _,
        } = backend;
        if drain_until.is_some() && *admin != Admin::Draining {
            self.invalid(
                at("drain_until"),
                format!("backend {name} has an end of its drain, but does not drain"),
                "set admin = \"draining\", or leave drain_until out",
            );
        }
        let vip = service.key;
        if let Some(why) = unusable(address.ip()) {
            self.invalid(
                at("address"),
                format!("address {} of backend {name} {why}", address.ip()),
                "",
            );
        }
        let keeps_port = vip.port == 0 || !service.ports.is_empty();
        if address.port() == 0 && !keeps_port {
            self.invalid(
                at("address"),
                format!("backend {name} has no port"),
                "add it; only where the service has several ports (ports, or port 0) packets may keep theirs",
            );
        }
        if vip.has_address(address.ip()) && (address.port() == 0 || service.has_port(address.port())) {
            let own = if vip.is_prefix() {
                "an address of the service's own"
            } else {
                "the service's own address"
            };
            let what = format!("backend {name} is {own}, {address}: packets would go round in circles");
            self.invalid(at("address"), what, "give the address of the server itself");
        }
        let mode = mode.unwrap_or(service.mode);
        let carries_both = match mode {
            Mode::Nat | Mode::Dnat | Mode::L2dsr => false,
            Mode::Ipip | Mode::Gue => true,
        };
        if !carries_both && address.is_ipv4() != vip.address.is_ipv4() {
            let family = |v4| if v4 { "IPv4" } else { "IPv6" };
            let what = format!(
                "mode {} cannot carry {} packets of {} to the {} backend {name}",
                mode.word(),
                family(vip.address.is_ipv4()),
                vip.address_text(),
                family(address.is_ipv4())
            );
            self.invalid(
                at("address"),
                what,
                "use a backend address of the service's family",
            );
        }
        let checked = service.health.kind != CheckKind::None;
        if checked && address.port() == 0 && service.health.port.is_none() {
            let what = format!(
                "backend {name} has no port that a {} check could go to",
                words::kind(&service.health.kind)
            );
            self.invalid(at("address"), what, "set port in [service.health]");
        }
    }
}
