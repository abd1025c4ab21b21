//! Addresses of services and of source NAT: whether packets to them arrive at this machine, and at the program.

use std::net::IpAddr;

use super::super::facts::sysctl;
use crate::{
    datapath::{HostAddress, LinkOperation},
    doctor::{
        facts::Facts,
        finding::{Finding, Level},
        setup::Setup,
    },
    state::{guard::Prefix, service::Service},
};

/// Values of `arp_ignore` with which an interface answers for its own addresses alone, for those alone and to hosts of their networks,
/// and for none (ip-sysctl.rst of the kernel).
const OWN_ALONE: i64 = 1;
const OWN_TO_NETWORK: i64 = 2;
const NONE: i64 = 8;

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
        let message = format!("no service has {address}: only the address is looked at");
        findings.push(Finding::ok("vip", address.to_string(), message));
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
    let networks: Vec<&HostAddress> = facts
        .addresses
        .iter()
        .filter(|own| interfaces.contains(&own.ifindex) && reaches(own, address))
        .collect();
    // Several interfaces may have the address.
    let copies = facts.addresses.iter().filter(|own| own.address == address);
    let (duplicates, copies): (Vec<&HostAddress>, Vec<&HostAddress>) = copies.partition(|own| own.duplicate);
    let is_down = |own: &&HostAddress| {
        let link = facts.links.iter().find(|link| link.ifindex == own.ifindex);
        link.is_some_and(|link| link.operation == LinkOperation::Down)
    };
    let (down, good): (Vec<&HostAddress>, Vec<&HostAddress>) = copies.into_iter().partition(is_down);
    if let Some(duplicate) = duplicates.first() {
        let message = format!(
            "{address} on {} is a duplicate: another machine of its network has it",
            name_of(duplicate.ifindex)
        );
        let finding = Finding::fail("address_conflict", subject, message)
            .remedy("take it off the other machine")
            .remedy("give the service another address");
        // Packets to the other copies arrive.
        let level = if good.is_empty() { Level::Fail } else { Level::Warn };
        return vec![Finding { level, ..finding }];
    }
    if let Some(own) = good.first() {
        let interface = name_of(own.ifindex);
        let place = format!("is on {interface}");
        let unanswered = unanswered(facts, subject, address, &place, &good, &networks, name_of);
        let ok = || Finding::ok("address", subject, format!("{address} is on {interface}"));
        return vec![unanswered.unwrap_or_else(ok)];
    }
    if let Some(own) = down.first() {
        let interface = name_of(own.ifindex);
        let message = format!("{address} is on {interface}, which is down: it is not answered for");
        return vec![
            Finding::warn("address", subject, message).remedy(format!("ip link set dev {interface} up")),
        ];
    }
    if facts.local.contains(&address) {
        let unanswered = unanswered(
            facts,
            subject,
            address,
            "has a local route",
            &[],
            &networks,
            name_of,
        );
        // For neighbour discovery the kernel asks whether an interface has the address.
        if unanswered.is_some() || address.is_ipv4() || networks.is_empty() {
            let message = format!("packets to {address} end on this machine, by a local route");
            return vec![unanswered.unwrap_or_else(|| Finding::ok("address", subject, message))];
        }
    }
    let Some(network) = networks.first() else {
        return vec![routed(subject, &address.to_string())];
    };
    let interface = name_of(network.ifindex);
    let network = Prefix::around(network.address, network.length);
    let missing = if facts.local.contains(&address) {
        "has a local route alone"
    } else {
        "is not on this machine"
    };
    let message = format!(
        "{address} lies in {network} of {interface}, but {missing}: no machine answers {question} for it"
    );
    vec![
        Finding::warn("address", subject, message)
            .remedy(format!("ip addr add {address}/{whole} dev {interface}")),
    ]
}

/// Whether `arp_ignore` keeps every interface in the address's network from answering for it, which is on the interfaces `good`, or has a
/// local route; `place` says that. A warning: a router may have a route to it.
fn unanswered(
    facts: &Facts,
    subject: &str,
    address: IpAddr,
    place: &str,
    good: &[&HostAddress],
    networks: &[&HostAddress],
    name_of: impl Fn(u32) -> String,
) -> Option<Finding> {
    let key = |name: &str| format!("ipv4/conf/{name}/arp_ignore");
    let setting = |name: &str| facts.number(&key(name)).unwrap_or(0);
    let has_it = |network: &HostAddress| good.iter().any(|own| own.ifindex == network.ifindex);
    // The larger of both values counts.
    let value = |network: &HostAddress| setting("all").max(setting(&name_of(network.ifindex)));
    let answers = |network: &&HostAddress| match value(network) {
        OWN_ALONE | OWN_TO_NETWORK => has_it(network),
        NONE => false,
        _ => true,
    };
    let asked = networks.first()?;
    if !address.is_ipv4() || networks.iter().any(answers) {
        return None;
    }
    let value = value(asked);
    let asked = name_of(asked.ifindex);
    let message = format!(
        "{address} {place}, and arp_ignore of {asked} keeps it from being answered there: no machine answers ARP for it"
    );
    let scopes = ["all", &asked].into_iter().filter(|scope| setting(scope) > 0);
    let settings: Vec<String> = scopes.map(key).collect();
    let finding = Finding::warn("arp_ignore", subject, message);
    let finding = if value == NONE {
        finding
    } else {
        finding.remedy(format!("ip addr add {address}/32 dev {asked}"))
    };
    Some(finding.remedy(sysctl(&settings, 0)))
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
            "ss -lnp 'sport = :{}' # names it: stop it or move it",
            listener.1.port()
        )),
    )
}

/// Addresses for source NAT: replies of backends come to them.
fn source_addresses(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let addresses = setup.desired.settings.snat_addresses.iter();
    addresses
        .flat_map(|address| of_address(setup, facts, "snat_addresses", *address))
        .filter(|finding| finding.level > Level::Ok)
        .collect()
}
