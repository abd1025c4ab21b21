//! Asks the networks of the interfaces whether other machines have the addresses of services.

use std::{collections::BTreeSet, io, net::IpAddr};

use crate::{
    datapath::host_network::HostNetwork,
    doctor::{facts::Facts, finding::Finding, path_probe::paths, setup::Setup},
};

/// Asks the networks for the services' addresses, and backends through the path of clients' packets.
pub fn probe(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let found = conflicts(setup, facts).and_then(|mut findings| {
        findings.extend(paths(setup, facts)?);
        Ok(findings)
    });
    found.unwrap_or_else(|error| {
        let message = format!("cannot ask the network: {error}");
        vec![Finding::warn("probe", "machine", message).remedy("sudo lb doctor --probe")]
    })
}

/// A failure for each address of a service that another machine has. Takes a second for each address and interface.
///
/// # Errors
/// Without `CAP_NET_RAW`.
fn conflicts(setup: &Setup, facts: &Facts) -> io::Result<Vec<Finding>> {
    let network = HostNetwork::open()?;
    let addresses: BTreeSet<IpAddr> = setup.service_addresses().collect();
    let mut findings = Vec::new();
    for address in addresses {
        for link in facts.interfaces(setup) {
            let Some(mac) = network.holder(link, address)? else {
                continue;
            };
            if let Some(backend) = backend_with(setup, facts, address, mac) {
                findings.push(backend);
                continue;
            }
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            let message = format!("{mac} on the network of {} has this address, too", link.name);
            findings.push(
                Finding::fail("address_conflict", address.to_string(), message)
                    .remedy("take it off that machine")
                    .remedy("give the service another address"),
            );
        }
    }
    Ok(findings)
}

/// The finding for a backend that holds a service's address, as some modes need, and answers for it, so that clients' packets go past
/// the balancer.
fn backend_with(setup: &Setup, facts: &Facts, address: IpAddr, mac: [u8; 6]) -> Option<Finding> {
    let of_address = setup.services().filter(|service| service.key.address == address);
    let mut backends =
        of_address.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let (service, backend) = backends.find(|(_, backend)| {
        let way = facts.ways.get(&backend.address.ip());
        way.is_some_and(|way| way.mac == Some(mac))
    })?;
    let place = backend.address.ip();
    let (question, remedy) = if address.is_ipv4() {
        (
            "ARP",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".to_owned(),
        )
    } else {
        (
            "neighbour discovery",
            format!("ip addr del {address}/128 dev eth0; ip addr add {address}/128 dev lo nodad"),
        )
    };
    let message = format!("answers {question} for {address}: clients' packets go to it, past this machine");
    let subject = format!("{}/{}", service.name, backend.name);
    Some(Finding::fail("address_conflict", subject, message).remedy(format!("{remedy} # on {place}")))
}
