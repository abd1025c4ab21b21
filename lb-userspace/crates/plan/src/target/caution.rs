//! Caution: backends that take no new flows before their first health state. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    backend::{Admin, Backend},
    content::Target,
    desired::Desired,
    effective::HealthView,
    service::ServiceKey,
};
use crate::health::{CheckId, Health};

/// Whether backends took new flows in the maps of an earlier daemon, by service and address.
pub type Standings = BTreeMap<(ServiceKey, SocketAddr), bool>;

/// The state before, as far as it matters for backends without a health state.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// The programmed state; `None` before the first time.
    pub programmed: Option<&'a Target>,
    /// The state that an earlier daemon had programmed.
    pub standings: &'a Standings,
    /// Backends that got no packets before this start.
    pub unverified: &'a BTreeSet<CheckId>,
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

/// The unchecked backends that take no new flows before their first health state. A backend is held if another one of
/// its service is up, and it takes no new flows at present or got no packets before this start. It is also held if it
/// took no flows under an earlier daemon, but another one did. Its established flows stay, since only a health state
/// may move them. Without another backend, trying it is no worse than dropping packets.
pub(super) fn held(
    desired: &Desired,
    health: &HealthView,
    before: Before<'_>,
) -> Vec<(ServiceKey, SocketAddr)> {
    let mut held = Vec::new();
    for service in desired.services.values().filter(|service| service.is_checked()) {
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
        // A backup that is up does not count for the others: at a start it would take their flows until they are
        // checked.
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
