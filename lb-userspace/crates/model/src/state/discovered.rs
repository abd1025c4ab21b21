//! Backends that host names found: the desired state after an answer, and after a file that has only the host name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    backend::Backend,
    change::ChangeError,
    check::{self, Place, Problem},
    desired::Desired,
    hosts::HostBackend,
    names::{BackendName, ServiceName},
    service::Service,
};

/// An address that its service cannot use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The address.
    pub address: IpAddr,
    /// Why it is no backend.
    pub why: String,
}

/// The content of a file, with the backends that `present` found by the host names that the file still has. They get the
/// values of the file. If `present` knows a host, its backends in the file (an export) come from an older answer: only their
/// values count.
#[must_use]
pub fn carry(file: &Desired, present: &Desired) -> Desired {
    let mut next = file.clone();
    for (name, service) in &mut next.services {
        if service.hosts.is_empty() {
            continue;
        }
        let there = present.services.get(name).map(|there| &**there);
        let mut backends = written(service);
        for host in &service.hosts {
            let mut found = of(service, host);
            if let Some(there) = there.filter(|there| there.hosts.iter().any(|known| is_same(known, host))) {
                let with_values = |known: Backend| {
                    let address = known.address.ip();
                    let own = found.iter().find(|own| own.address.ip() == address);
                    let mut backend = own.cloned().unwrap_or_else(|| host.at(address));
                    backend.address.set_port(host.port);
                    backend
                };
                found = of(there, host).into_iter().map(with_values).collect();
            }
            backends.extend(found);
        }
        if backends != service.backends {
            service.backends = backends;
        }
    }
    leave_out(&mut next, |_, backend| backend.discovered_by.is_some());
    next
}

/// The state after an answer for a host name, and the addresses that it leaves out. Backends that stay keep their values;
/// an answer without a usable address changes nothing.
///
/// # Errors
/// Service or host not found; content that cannot work, for another reason than an address.
pub fn answered(
    desired: &Desired,
    service: &ServiceName,
    name: &BackendName,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(Desired, Vec<LeftOut>), ChangeError> {
    let before = desired.service(service)?;
    let host = before.host(name)?;
    let known: BTreeMap<IpAddr, Backend> = of(before, host)
        .into_iter()
        .map(|backend| (backend.address.ip(), backend))
        .collect();
    let mut next = desired.clone();
    let mut changed = before.clone();
    changed.backends = written(before);
    for other in &before.hosts {
        if other.name == *name {
            let found = addresses.iter().map(|address| known.get(address).cloned());
            let found = found.zip(addresses);
            let found = found.map(|(known, address)| known.unwrap_or_else(|| host.at(*address)));
            changed.backends.extend(found);
        } else {
            changed.backends.extend(of(before, other));
        }
    }
    next.services.insert(service.clone(), changed.into());
    let left_out = leave_out(&mut next, |of, backend| {
        of == service && backend.discovered_by.as_ref() == Some(name)
    });
    if of(next.service(service)?, host).is_empty() {
        return Ok((desired.clone(), left_out));
    }
    Ok((desired.replace(next)?, left_out))
}

/// The backends that no host name found, in their order.
fn written(service: &Service) -> Vec<Backend> {
    let written = service.backends.iter();
    written
        .filter(|backend| backend.discovered_by.is_none())
        .cloned()
        .collect()
}

/// The backends that a host name found, by address.
pub fn of(service: &Service, host: &HostBackend) -> Vec<Backend> {
    let found = service.backends.iter();
    let found = found.filter(|backend| backend.discovered_by.as_ref() == Some(&host.name));
    let mut found: Vec<Backend> = found.cloned().collect();
    found.sort_by_key(|backend| backend.address.ip());
    found
}

/// Whether both have the same name and the same host name, so that an answer for one serves the other.
fn is_same(known: &HostBackend, host: &HostBackend) -> bool {
    known.name == host.name && known.host == host.host
}

/// Removes backends that cannot work, as far as they `may` be left out.
fn leave_out(next: &mut Desired, may: impl Fn(&ServiceName, &Backend) -> bool) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    if next.services.values().all(|service| service.hosts.is_empty()) {
        return left_out;
    }
    // Each round leaves out at least one backend; the others may be valid without it.
    loop {
        let services: Vec<&Service> = next.services.values().map(|service| &**service).collect();
        let has_hosts = |service: &Service| !service.hosts.is_empty();
        let mut found: BTreeMap<ServiceName, BTreeMap<usize, String>> = BTreeMap::new();
        for Problem { place, what, .. } in check::problems_of(&next.settings, &services, has_hosts) {
            let Place::Backend(index, place, _) = place else {
                continue;
            };
            let Some(service) = services.get(index) else {
                continue;
            };
            if service
                .backends
                .get(place)
                .is_some_and(|backend| may(&service.name, backend))
            {
                let of_service = found.entry(service.name.clone()).or_default();
                of_service.entry(place).or_insert(what);
            }
        }
        if found.is_empty() {
            return left_out;
        }
        for (service, mut reasons) in found {
            let Some(service) = next.services.get_mut(&service) else {
                continue;
            };
            let mut place = 0;
            service.backends.retain(|backend| {
                let why = reasons.remove(&place);
                place += 1;
                let Some(why) = why else { return true };
                let address = backend.address.ip();
                left_out.push(LeftOut { address, why });
                false
            });
        }
    }
}

#[cfg(test)]
mod tests;
