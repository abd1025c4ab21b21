//! Faults of services, from the cheap checks: what makes all flows of a service or of a backend fail whatever its checks say. Warnings
//! are none.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use lb_common::service::Mode;

use super::{
    checks::{addresses, interfaces, paths},
    facts::Facts,
    finding::{Finding, Level},
    setup::Setup,
};
use crate::{
    control::{Fault, FaultsByService},
    datapath::host_network::HostLink,
    state::{
        backend::{Admin, Backend},
        names::BackendName,
        service::Service,
    },
};

/// The faults of all services; a service without any is missing.
pub(super) fn all(setup: &Setup, facts: &Facts) -> FaultsByService {
    let services = setup.services().filter_map(|service| {
        let faults = of_service(setup, facts, service);
        (!faults.is_empty()).then(|| (service.name.clone(), faults))
    });
    services.collect()
}

fn of_service(setup: &Setup, facts: &Facts, service: &Service) -> Vec<Fault> {
    let wanted = |backend: &&Backend| backend.admin == Admin::Enabled && backend.weight > 0;
    let backends: Vec<&Backend> = service.backends.iter().filter(wanted).collect();
    let of_backends: Vec<(&Backend, Finding)> = backends
        .iter()
        .filter_map(|backend| Some((*backend, of_backend(setup, facts, service, backend)?)))
        .collect();
    let address = (!service.key.is_prefix())
        .then(|| addresses::of_address(setup, facts, service.name.as_str(), service.key.address))
        .into_iter()
        .flatten()
        .find(|finding| finding.level == Level::Fail);
    let mut faults: Vec<Fault> = address
        .map(|finding| fault(None, finding.message, finding.remedies))
        .into_iter()
        .chain(clients_cut_off(setup, facts, &backends, service))
        .collect();
    match of_backends.first() {
        Some((backend, finding)) if of_backends.len() == backends.len() => {
            let message = format!("{}: {}", backend.name, finding.message);
            faults.push(fault(None, message, finding.remedies.clone()));
        }
        Some(_) | None => faults.extend(of_backends.into_iter().map(|(backend, finding)| {
            let name = Some(backend.name.clone());
            fault(name, finding.message, finding.remedies)
        })),
    }
    faults
}

const fn fault(backend: Option<BackendName>, message: String, remedies: Vec<String>) -> Fault {
    Fault {
        backend,
        message,
        remedies,
    }
}

/// Why packets of a backend's flows are lost, although it has a route.
fn of_backend(setup: &Setup, facts: &Facts, service: &Service, backend: &Backend) -> Option<Finding> {
    let address = backend.address.ip();
    let way = facts.ways.get(&address)?;
    let mode = backend.mode.unwrap_or(service.mode);
    let found = paths::direct(backend.name.as_str(), address, mode, &way.state);
    found.or_else(|| {
        let link = facts.links.iter().find(|link| link.ifindex == way.ifindex)?;
        let is_own = facts.interfaces(setup).any(|own| own.ifindex == link.ifindex);
        let found = if is_own {
            transmit(setup, facts, link)
        } else {
            paths::exit(setup, facts, link)
        };
        found.map(|finding| Finding {
            message: on_link(&finding),
            ..finding
        })
    })
}

fn transmit(setup: &Setup, facts: &Facts, link: &HostLink) -> Option<Finding> {
    let device = facts.devices.get(&link.ifindex)?;
    interfaces::veth_transmit(setup, link, device)
}

/// The message of a finding about an interface, with its name.
fn on_link(finding: &Finding) -> String {
    format!("interface {}: {}", finding.subject, finding.message)
}

/// Why no interface can serve clients. Those that lead to backends count only where there are no others.
fn clients_cut_off(setup: &Setup, facts: &Facts, backends: &[&Backend], service: &Service) -> Option<Fault> {
    let exits: BTreeSet<u32> = backends
        .iter()
        .filter_map(|backend| Some(facts.ways.get(&backend.address.ip())?.ifindex))
        .collect();
    let is_exit = |name: &&String| facts.link(name).is_some_and(|link| exits.contains(&link.ifindex));
    let (to_backends, others): (Vec<&String>, Vec<&String>) = setup.interfaces.iter().partition(is_exit);
    let names = if others.is_empty() { to_backends } else { others };
    // Replies of the other modes do not pass this machine.
    let passes_replies = backends
        .iter()
        .any(|backend| match backend.mode.unwrap_or(service.mode) {
            Mode::Nat | Mode::Dnat => true,
            Mode::L2dsr | Mode::Ipip | Mode::Gue => false,
        });
    let cut_off = |name: &String| {
        let Some(link) = facts.link(name) else {
            let finding = Finding::fail("interface", name, "does not exist");
            return Some(finding.remedy("`ip link` lists what there is: attached to as soon as it is there"));
        };
        interfaces::operation(link)
            .or_else(|| without_program(setup, link))
            .or_else(|| transmit(setup, facts, link).filter(|_| passes_replies))
    };
    let found: Option<Vec<Finding>> = names.into_iter().map(cut_off).collect();
    let first = found?.into_iter().next()?;
    Some(fault(None, on_link(&first), first.remedies))
}

fn without_program(setup: &Setup, link: &HostLink) -> Option<Finding> {
    (!setup.running.contains_key(&link.name)).then(|| {
        Finding::fail("attached", &link.name, "the program does not run on it")
            .remedy("`lb status` tells why")
    })
}
