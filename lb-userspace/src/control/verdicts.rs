//! Verdicts of checks as the effective state should see them, and the checks that make them. All pure.

use std::net::SocketAddr;

use lb_common::service::Mode;

use super::removed::RemovedBackend;
use crate::{
    health::{CheckId, CheckPath, CheckSpec, Health, settings::Through},
    state::{backend::Backend, desired::Desired, effective::HealthView, service::Service},
};

/// All backends with their ids.
pub(super) fn backends(desired: &Desired) -> impl Iterator<Item = (CheckId, &Service, &Backend)> {
    desired
        .services
        .values()
        .map(|service| &**service)
        .flat_map(|service| {
            let id = |backend: &Backend| CheckId(service.name.clone(), backend.name.clone());
            service
                .backends
                .iter()
                .map(move |backend| (id(backend), service, backend))
        })
}

/// Whether checks find out by themselves how a backend of a service is. One of kind push may never report.
pub(super) fn finds_out(service: &Service) -> bool {
    service.is_checked() && !service.health.kind.is_reported()
}

/// Whether a verdict about `id` matters.
pub(super) fn wants(desired: &Desired, id: &CheckId) -> bool {
    desired.service(&id.0).is_ok_and(Service::is_checked) && desired.backend(&id.0, &id.1).is_ok()
}

/// The checks of a desired state and of removed backends (`lingering`), whose flows must move if they die. Disabled
/// backends are checked too, so that their health is known when they return.
pub(super) fn specs(desired: &Desired, health: &HealthView, lingering: &[RemovedBackend]) -> Vec<CheckSpec> {
    let desired_ones = backends(desired)
        .filter(|(_, service, _)| service.is_checked())
        .map(|(id, service, backend)| CheckSpec {
            target: backend.address,
            path: path(service, backend.address, backend.mode.unwrap_or(service.mode)),
            settings: service.health.clone(),
            initial: health.get(&id).copied().unwrap_or_default(),
            id,
        });
    let lingering = lingering.iter().filter_map(|gone| {
        let service = gone.service_in(desired).filter(|service| service.is_checked())?;
        let id = gone.check_id().filter(|id| !wants(desired, id))?;
        Some(CheckSpec {
            target: gone.address,
            path: path(service, gone.address, gone.mode),
            settings: service.health.clone(),
            // It had flows until now.
            initial: Health::Up,
            id,
        })
    });
    desired_ones.chain(lingering).collect()
}

/// The path that checks of a backend go through, where the service wants that.
fn path(service: &Service, backend: SocketAddr, mode: Mode) -> Option<CheckPath> {
    match service.health.through {
        Through::Backend => None,
        Through::Vip => Some(CheckPath {
            vip: SocketAddr::new(service.key.address, service.key.port),
            protocol: service.key.protocol.number(),
            backend,
            mode,
        }),
    }
}

/// The health states from an earlier daemon of backends that are checked.
pub(super) fn carried_over(desired: &Desired, health: &HealthView) -> HealthView {
    let wanted = health.iter().filter(|(id, _)| wants(desired, id));
    wanted.map(|(id, health)| (id.clone(), *health)).collect()
}

/// The health states that still hold when `new` replaces `old`: of checked backends with the same address.
pub(super) fn after(old: &Desired, new: &Desired, health: &HealthView) -> HealthView {
    let stays = |id: &CheckId| {
        let address = |desired: &Desired| desired.backend(&id.0, &id.1).ok().map(|backend| backend.address);
        wants(new, id) && address(old) == address(new)
    };
    health
        .iter()
        .filter(|(id, _)| stays(id))
        .map(|(id, health)| (id.clone(), *health))
        .collect()
}
