//! Verdicts of checks as the effective state should see them, and the checks that make them. All pure.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::service::Mode;

use super::{inherited::Standings, lingering::Lingering};
use crate::{
    health::{CheckId, CheckPath, CheckSpec, Health, settings::Through},
    plan::Target,
    state::{
        backend::{Admin, Backend},
        desired::Desired,
        effective::HealthView,
        service::{Service, ServiceKey},
    },
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

pub(super) fn is_checked(service: &Service) -> bool {
    service.health.kind.is_check()
}

/// Whether checks find out by themselves how a backend of a service is. One of kind push may never report.
pub(super) fn finds_out(service: &Service) -> bool {
    is_checked(service) && !service.health.kind.is_told()
}

/// Whether a verdict about `id` matters.
pub(super) fn wants(desired: &Desired, id: &CheckId) -> bool {
    desired.service(&id.0).is_ok_and(is_checked) && desired.backend(&id.0, &id.1).is_ok()
}

/// The checks of a desired state, and of `lingering` backends: one that dies has to give its flows away. Disabled backends
/// are checked too, so that their health is known when they return.
pub(super) fn specs(desired: &Desired, health: &HealthView, lingering: &[Lingering]) -> Vec<CheckSpec> {
    let desired_ones = backends(desired)
        .filter(|(_, service, _)| is_checked(service))
        .map(|(id, service, backend)| CheckSpec {
            target: backend.address,
            path: path(service, backend.address, backend.mode.unwrap_or(service.mode)),
            settings: service.health.clone(),
            initial: health.get(&id).copied().unwrap_or_default(),
            id,
        });
    let lingering = lingering.iter().filter_map(|gone| {
        let service = gone.service_in(desired).filter(|service| is_checked(service))?;
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

/// Of verdicts from an earlier daemon, those about backends that are checked.
pub(super) fn carried_over(desired: &Desired, health: &HealthView) -> HealthView {
    let wanted = health.iter().filter(|(id, _)| wants(desired, id));
    wanted.map(|(id, health)| (id.clone(), *health)).collect()
}

/// The verdicts that still hold when `new` follows `old`: those about backends that are checked and stand where they
/// stood.
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

/// What was in force before, as far as it bears on backends without a verdict.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    /// What is programmed; `None` before the first time.
    pub(super) programmed: Option<&'a Target>,
    /// What an earlier daemon had programmed.
    pub(super) standings: &'a Standings,
    /// Backends that nothing was forwarded to before this start.
    pub(super) unverified: &'a BTreeSet<CheckId>,
}

impl Before<'_> {
    /// Whether a backend takes new flows now.
    fn takes_flows(&self, place: (ServiceKey, SocketAddr)) -> bool {
        match self.programmed {
            Some(target) => target
                .services
                .get(&place.0)
                .and_then(|service| service.backends.get(&place.1))
                .is_some_and(|there| there.weight > 0),
            None => self.standings.get(&place).copied().unwrap_or_default(),
        }
    }
}

/// Who takes no new flows until a check has spoken, while others of its service take them: a backend without verdict
/// that takes none now, or that nothing was forwarded to before this start, where another is known to be up; and one
/// that took none under an earlier daemon either, where another took some. Its established flows stay with it, since
/// only a verdict may take them. Where nobody else is there, trying it is no worse than dropping.
pub(super) fn held(
    desired: &Desired,
    health: &HealthView,
    before: Before<'_>,
) -> Vec<(ServiceKey, SocketAddr)> {
    let mut held = Vec::new();
    for service in desired.services.values().filter(|service| is_checked(service)) {
        let id = |backend: &Backend| CheckId(service.name.clone(), backend.name.clone());
        let verdict = |backend: &Backend| health.get(&id(backend)).copied().unwrap_or_default();
        let place = |backend: &Backend| (service.key, backend.address);
        let wanted = || {
            let wanted = service.backends.iter();
            wanted.filter(|backend| backend.admin == Admin::Enabled && backend.weight > 0)
        };
        let is_unknown = |backend: &&Backend| verdict(backend) == Health::Unchecked;
        if !wanted().any(|backend| is_unknown(&backend)) {
            continue;
        }
        // A backup that is up says nothing about the others: at a start it would take their flows until they are checked.
        let counted = |for_backup: bool| wanted().filter(move |other| for_backup || !other.backup);
        let one_is_up = |for_backup| counted(for_backup).any(|other| verdict(other) == Health::Up);
        let one_serves = |for_backup| {
            counted(for_backup).any(|other| is_unknown(&other) && before.takes_flows(place(other)))
        };
        let (up, serves) = ([false, true].map(one_is_up), [false, true].map(one_serves));
        let waits = |backend: &&Backend| {
            let class = usize::from(backend.backup);
            let took_none = before.standings.get(&place(backend)) == Some(&false);
            (up[class] && before.unverified.contains(&id(backend)))
                || ((up[class] || (took_none && serves[class])) && !before.takes_flows(place(backend)))
        };
        held.extend(wanted().filter(is_unknown).filter(waits).map(place));
    }
    held
}
