//! Addresses of services and of source NAT: whether packets to them arrive at this machine, and at the program.

use std::net::IpAddr;

use crate::{
    datapath::{HostAddress, LinkOperation},
    doctor::{facts::Facts, finding::Finding, setup::Setup},
    state::{guard::Prefix, service::Service},
};

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in setup.services() {
        let name = service.name.to_string();
        if service.key.is_prefix() {
            findings.push(routed(&name, &service.key.address_text()));
        } else {
            findings.extend(of_address(setup, facts, &name, service.key.address));
        }
        findings.extend(shadowed(facts, service));
    }
    for address in &setup.addresses {
        findings.extend(of_address(setup, facts, &address.to_string(), *address));
    }
    findings.extend(source_addresses(setup, facts));
    findings
}

/// The finding for an address that no network of this machine has: nothing can be said about it here.
fn routed(subject: &str, address: &str) -> Finding {
    Finding::ok(
        "address",
        subject,
        format!("{address} is not in a network of this machine: a router has to send it here"),
    )
}

/// Whether an address of a link's own is in the same network as `address`.
fn reaches(own: &HostAddress, address: IpAddr) -> bool {
    let whole = if own.address.is_ipv4() { 32 } else { 128 };
    own.length < whole && Prefix::around(own.address, own.length).contains(address)
}

pub(in super::super) fn of_address(
    setup: &Setup,
    facts: &Facts,
    subject: &str,
    address: IpAddr,
) -> Vec<Finding> {
    let name_of = |ifindex: u32| {
        let link = facts.links.iter().find(|link| link.ifindex == ifindex);
        link.map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    };
    let question = if address.is_ipv4() {
        "ARP"
    } else {
        "neighbour discovery"
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let interfaces: Vec<u32> = facts.interfaces(setup).map(|link| link.ifindex).collect();
    let on_segment = |own: &&HostAddress| interfaces.contains(&own.ifindex) && reaches(own, address);
    let segment = facts
        .addresses
        .iter()
        .filter(|own| own.address != address)
        .find(on_segment);
    let Some(own) = facts.addresses.iter().find(|own| own.address == address) else {
        if facts.local.contains(&address) {
            let message = format!("packets to {address} end on this machine, by a local route");
            return vec![Finding::ok("address", subject, message)];
        }
        let Some(segment) = segment else {
            return vec![routed(subject, &address.to_string())];
        };
        let interface = name_of(segment.ifindex);
        let network = Prefix::around(segment.address, segment.length);
        let message = format!(
            "{address} lies in {network} of {interface}, but is not on this machine: no machine answers {question} for it"
        );
        return vec![
            Finding::warn("address", subject, message)
                .remedy(format!("ip addr add {address}/{whole} dev {interface}")),
        ];
    };
    let interface = name_of(own.ifindex);
    if own.duplicate {
        let message =
            format!("{address} on {interface} is a duplicate: another machine of its network has it");
        return vec![
            Finding::fail("address_conflict", subject, message)
                .remedy("take it off the other machine")
                .remedy("give the service another address"),
        ];
    }
    let link = facts.links.iter().find(|link| link.ifindex == own.ifindex);
    if link.is_some_and(|link| link.operation == LinkOperation::Down) {
        let message = format!("{address} is on {interface}, which is down: it is not answered for");
        return vec![
            Finding::warn("address", subject, message).remedy(format!("ip link set dev {interface} up")),
        ];
    }
    // Asked on one interface about the address of another one: arp_ignore says whether it is answered.
    if let Some(segment) = segment.filter(|segment| segment.ifindex != own.ifindex && address.is_ipv4()) {
        let asked = name_of(segment.ifindex);
        let setting = |name: &str| facts.number(&format!("ipv4/conf/{name}/arp_ignore")).unwrap_or(0);
        if setting("all").max(setting(&asked)) >= 1 {
            let message = format!(
                "{address} is on {interface}, and arp_ignore of {asked} keeps it from being answered there: no machine answers \
                 {question} for it"
            );
            let scope = if setting("all") >= 1 { "all" } else { &asked };
            return vec![
                Finding::fail("arp_ignore", subject, message)
                    .remedy(format!("ip addr add {address}/{whole} dev {asked}"))
                    .remedy(format!("sysctl -w net.ipv4.conf.{scope}.arp_ignore=0")),
            ];
        }
    }
    vec![Finding::ok(
        "address",
        subject,
        format!("{address} is on {interface}"),
    )]
}

/// A server of this machine that waits for the packets of a service.
fn shadowed(facts: &Facts, service: &Service) -> Option<Finding> {
    // A service on every port passes what sockets of this machine wait for.
    if service.key.port == 0 || service.key.is_prefix() {
        return None;
    }
    let (protocol, address) = (service.key.protocol, service.key.address);
    let listener = facts.listeners.iter().find(|(of, socket)| {
        *of == protocol && socket.ip() == address && service.all_ports().any(|port| port == socket.port())
    })?;
    let message = format!(
        "a server of this machine waits at {}, too: packets from outside go to backends, and it gets none",
        listener.1
    );
    Some(
        Finding::warn("listener", service.name.to_string(), message).remedy(format!(
            "ss -lnp 'sport = :{}' names it; stop it or move it",
            listener.1.port()
        )),
    )
}

/// Addresses for source NAT: replies of backends come to them.
fn source_addresses(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let addresses = setup.desired.settings.snat_addresses.iter();
    addresses
        .flat_map(|address| of_address(setup, facts, "snat_addresses", *address))
        .filter(|finding| finding.level > crate::doctor::finding::Level::Ok)
        .collect()
}
