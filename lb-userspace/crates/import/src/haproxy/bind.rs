//! `bind` lines: addresses and ports of services.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
};

use lb_common::limits::MAX_SERVICES;
use lb_model::state::ports::{MAX_PORTS, PortRange};

use super::address::{Host, Port, address};
use crate::statement::Statement;

/// An address with its ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    /// The address.
    pub(super) address: IpAddr,
    /// Ports, in order.
    pub(super) ports: Vec<PortRange>,
}

/// Addresses of `bind` lines.
#[derive(Default)]
struct Addresses {
    all: Vec<Bound>,
    places: HashMap<IpAddr, usize>,
}

/// The addresses of `bind` lines, ports of the same address together. `any` are the addresses that stand for every one of the
/// machine.
pub(super) fn read<'a>(lines: impl Iterator<Item = &'a Rc<Statement>>, any: &[IpAddr]) -> Vec<Bound> {
    let mut found = Addresses::default();
    for line in lines {
        line.map(0..1);
        let of_both = line.rest(2).iter().any(|word| word == "v4v6");
        for text in line.word(1).split(',') {
            line.map(1..2);
            match one(text, of_both, any) {
                Ok((addresses, ports)) => {
                    for address in addresses {
                        found.add(address, ports, line);
                    }
                }
                Err(why) => line.note(format!("{text}: {why}")),
            }
        }
        options(line);
    }
    found.all
}

impl Addresses {
    fn add(&mut self, address: IpAddr, ports: PortRange, line: &Statement) {
        let Some(bound) = self
            .places
            .get(&address)
            .and_then(|place| self.all.get_mut(*place))
        else {
            if self.all.len() >= MAX_SERVICES as usize {
                line.note(format!(
                    "not imported: more than the {MAX_SERVICES} services that fit"
                ));
                return;
            }
            self.places.insert(address, self.all.len());
            self.all.push(Bound {
                address,
                ports: vec![ports],
            });
            return;
        };
        if bound.ports.len() >= MAX_PORTS {
            line.note(format!("not imported: more than the {MAX_PORTS} ports that fit"));
        } else if bound.ports.iter().any(|known| overlap(*known, ports)) {
            line.note("a port of it is bound twice");
        } else {
            bound.ports.push(ports);
        }
    }
}

/// Whether two ranges have a port in common.
fn overlap(one: PortRange, other: PortRange) -> bool {
    let end = |range: PortRange| usize::from(range.first()) + range.count();
    usize::from(one.first()) < end(other) && usize::from(other.first()) < end(one)
}

/// The addresses of an item, with its ports.
fn one(text: &str, of_both: bool, any: &[IpAddr]) -> Result<(Vec<IpAddr>, PortRange), String> {
    let (host, port) = address(text)?;
    let ports = match port {
        Port::Range(ports) => ports,
        Port::Kept | Port::Other => return Err("it has no port that lb import can read".to_owned()),
    };
    let addresses = match host {
        Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST)) => {
            return Err(
                "clients of this machine alone reach it, and lb forwards packets from a network".to_owned(),
            );
        }
        Host::Ip(ip) => vec![ip],
        Host::Any(is_v4) => {
            let fits = |ip: &&IpAddr| ip.is_ipv4() == is_v4 || of_both;
            let addresses: Vec<IpAddr> = any.iter().filter(fits).copied().collect();
            if addresses.is_empty() {
                let family = if is_v4 { "IPv4" } else { "IPv6" };
                return Err(format!(
                    "this is every {family} address of the machine, and a service of lb has its own: name it with --address"
                ));
            }
            addresses
        }
        Host::Name(_) => return Err("a service needs an IP address, not a host name".to_owned()),
    };
    Ok((addresses, ports))
}

/// Parameters behind the address.
fn options(line: &Statement) {
    let mut at = 2;
    while at < line.words.len() {
        let (values, reason) = match line.word(at) {
            "v4v6" | "v6only" => {
                line.map(at..at + 1);
                at += 1;
                continue;
            }
            "ssl" => (
                0,
                "lb forwards bytes, so TLS does NOT end here: the backends need certificate and key, and clients speak TLS with \
                 them",
            ),
            "crt" | "crt-list" | "ca-file" | "ca-verify-file" | "crl-file" | "verify" | "alpn" | "npn"
            | "ciphers" | "ciphersuites" | "curves" | "ecdhe" | "sigalgs" | "client-sigalgs"
            | "ssl-min-ver" | "ssl-max-ver" | "default-crt" | "ca-sign-file" | "ca-sign-pass"
            | "crt-ignore-err" | "ca-ignore-err" | "tls-ticket-keys" | "ocsp-update" | "quic-cc-algo"
            | "quic-socket" => (1, "TLS ends at the backends"),
            "strict-sni"
            | "allow-0rtt"
            | "no-tls-tickets"
            | "prefer-client-ciphers"
            | "no-ca-names"
            | "no-alpn"
            | "generate-certificates"
            | "force-sslv3"
            | "force-tlsv10"
            | "force-tlsv11"
            | "force-tlsv12"
            | "force-tlsv13"
            | "no-sslv3"
            | "no-tlsv10"
            | "no-tlsv11"
            | "no-tlsv12"
            | "no-tlsv13"
            | "quic-force-retry" => (0, "TLS ends at the backends"),
            "accept-proxy" | "accept-netscaler-cip" => (
                usize::from(line.word(at) == "accept-netscaler-cip"),
                "lb reads no PROXY header: it goes on to the backend, which must expect it",
            ),
            "interface" => (1, "interfaces of [lb] are those that receive packets"),
            "transparent" | "defer-accept" | "tfo" => {
                (0, "lb ends no connection, so an option of sockets has no meaning")
            }
            "backlog" | "maxconn" => (
                1,
                "lb holds no connections, so it limits none; new_flows of [service.guard] limits new flows a second",
            ),
            "name" | "id" | "process" | "thread" | "shards" | "mss" | "tcp-ut" | "nice" | "namespace"
            | "proto" | "user" | "group" | "mode" | "uid" | "gid" | "level" | "severity-output"
            | "nbconn" | "cc" | "idle-ping" | "guid-prefix" | "label" | "tcp-ss" => {
                (1, "lb ends no connection, so an option of sockets has no meaning")
            }
            // Unknown words stay open, and are named as such.
            _ => {
                at += 1;
                continue;
            }
        };
        line.lose(at..at + 1 + values, reason);
        at += 1 + values;
    }
}
