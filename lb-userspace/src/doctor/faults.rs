//! Faults of services, from the cheap checks: what makes all flows of a service or of a backend fail whatever its checks say. Warnings
//! are none.

#[cfg(test)]
mod tests;

use lb_common::service::Mode;

use super::{
    checks::{addresses, interfaces, paths},
    facts::Facts,
    finding::{Finding, Level},
    setup::Setup,
};
use crate::{
    control::{Fault, FaultsByService, cause},
    datapath::host_network::{HostLink, HostWay},
    state::{
        backend::{Admin, Backend},
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

/// Whether a backend should take new flows.
pub(super) fn is_enabled(backend: &Backend) -> bool {
    backend.admin == Admin::Enabled && backend.weight > 0
}

fn of_service(setup: &Setup, facts: &Facts, service: &Service) -> Vec<Fault> {
    let backends: Vec<&Backend> = service
        .backends
        .iter()
        .filter(|backend| is_enabled(backend))
        .collect();
    let losses: Vec<Loss> = backends
        .iter()
        .filter_map(|backend| of_backend(setup, facts, service, backend))
        .collect();
    let address = (!service.key.is_prefix())
        .then(|| addresses::of_address(setup, facts, service.name.as_str(), service.key.address))
        .into_iter()
        .flatten()
        .find(|finding| finding.level == Level::Fail);
    let mut faults: Vec<Fault> = address
        .map(|finding| of_all(finding.message, finding.remedies))
        .into_iter()
        .chain(clients_cut_off(setup, facts, &backends, service))
        .collect();
    let is_total = losses.len() == backends.len();
    let losses = losses.into_iter().filter(|loss| is_total || loss.takes_flows);
    faults.extend(losses.map(|loss| Fault {
        is_total,
        ..loss.fault
    }));
    faults
}

const fn of_all(message: String, remedies: Vec<String>) -> Fault {
    Fault {
        backend: None,
        is_total: true,
        message,
        remedies,
    }
}

/// Why packets of a backend's flows are lost.
struct Loss {
    fault: Fault,
    /// Whether it takes new flows all the same: one to which nothing can be sent takes none while others can.
    takes_flows: bool,
}

fn of_backend(setup: &Setup, facts: &Facts, service: &Service, backend: &Backend) -> Option<Loss> {
    let way = facts.ways.get(&backend.address.ip())?;
    let loss = |message: String, remedies: Vec<String>, takes_flows: bool| Loss {
        fault: Fault {
            backend: Some(backend.name.clone()),
            is_total: false,
            message,
            remedies,
        },
        takes_flows,
    };
    let forwards = |setting: &str| facts.forwards(setting);
    if let Some(cause) = cause(&setup.desired, service, backend, &way.state, forwards) {
        return Some(loss(
            cause.to_string(),
            cause.remedies(service),
            !way.state.is_blocked(),
        ));
    }
    let finding = lost_on_the_way(setup, facts, service, backend, way)?;
    Some(loss(finding.message, finding.remedies, true))
}

/// Why frames do not reach a backend, or its replies this program, although it has a route.
fn lost_on_the_way(
    setup: &Setup,
    facts: &Facts,
    service: &Service,
    backend: &Backend,
    way: &HostWay,
) -> Option<Finding> {
    let mode = backend.mode.unwrap_or(service.mode);
    let address = backend.address.ip();
    let found = paths::direct(facts, backend.name.as_str(), address, mode, &way.state);
    found
        .filter(|finding| finding.level == Level::Fail)
        .or_else(|| {
            let link = facts.links.iter().find(|link| link.ifindex == way.ifindex)?;
            let is_own = facts.interfaces(setup).any(|own| own.ifindex == link.ifindex);
            let found = if is_own {
                transmit(setup, facts, link)
            } else {
                paths::exit(setup, facts, link).filter(|finding| finding.level == Level::Fail)
            };
            found.map(|finding| Finding {
                message: on_link(&finding),
                ..finding
            })
        })
        .or_else(|| paths::replies_elsewhere(setup, facts, backend.name.as_str(), address, mode, way))
}

fn transmit(setup: &Setup, facts: &Facts, link: &HostLink) -> Option<Finding> {
    let device = facts.devices.get(&link.ifindex)?;
    interfaces::veth_transmit(setup, link, device).filter(|_| paths::sends_natively(setup, facts))
}

/// The message of a finding about an interface, with its name.
fn on_link(finding: &Finding) -> String {
    format!("interface {}: {}", finding.subject, finding.message)
}

/// Why no interface can serve clients. Any that can is enough: clients may be behind each.
fn clients_cut_off(setup: &Setup, facts: &Facts, backends: &[&Backend], service: &Service) -> Option<Fault> {
    // Replies of the other modes do not pass this machine.
    let passes_replies = !backends.is_empty()
        && backends
            .iter()
            .all(|backend| match backend.mode.unwrap_or(service.mode) {
                Mode::Nat | Mode::Dnat => true,
                Mode::L2dsr | Mode::Ipip | Mode::Gue => false,
            });
    let cut_off = |name: &String| {
        let Some(link) = facts.link(name) else {
            let finding = Finding::fail("interface", name, "does not exist");
            return Some(finding.remedy("ip link # lists what there is: attached to as soon as it is there"));
        };
        interfaces::operation(link)
            .or_else(|| without_program(setup, link))
            .or_else(|| transmit(setup, facts, link).filter(|_| passes_replies))
    };
    let found: Option<Vec<Finding>> = setup.interfaces.iter().map(cut_off).collect();
    let first = found?.into_iter().next()?;
    Some(of_all(on_link(&first), first.remedies))
}

fn without_program(setup: &Setup, link: &HostLink) -> Option<Finding> {
    (!setup.running.contains_key(&link.name)).then(|| {
        Finding::fail("attached", &link.name, "the program does not run on it")
            .remedy("lb status # tells why")
    })
}
