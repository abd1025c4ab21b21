//! Asks the networks of the interfaces whether other machines have the addresses of services.

use std::{collections::BTreeSet, io, net::IpAddr};

use crate::{
    datapath::host_network::HostNetwork,
    doctor::{facts::Facts, finding::Finding, setup::Setup},
};

/// A failure for each address of a service that another machine has. Takes a second for each address and interface.
///
/// # Errors
/// Without `CAP_NET_RAW`.
pub fn conflicts(setup: &Setup, facts: &Facts) -> io::Result<Vec<Finding>> {
    let network = HostNetwork::open()?;
    let addresses: BTreeSet<IpAddr> = setup.service_addresses().collect();
    let mut findings = Vec::new();
    for address in addresses {
        for link in facts.interfaces(setup) {
            let Some(mac) = network.holder(link, address)? else {
                continue;
            };
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
