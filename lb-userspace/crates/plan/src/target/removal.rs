//! How much of a service checks alone may take out: where most backends fail at once, the check, the network or a
//! shared dependency is the likelier culprit, and the few that are left would not carry the load.

use std::collections::BTreeMap;

use super::{
    backend::{Admin, Backend},
    content::Target,
    desired::Desired,
    effective::{HealthView, health_of},
    names::{BackendName, ServiceName},
    service::{ALL_PERCENT, Service},
};
use crate::health::{CheckId, Health};

/// The backends that are down but still take flows, since `max_removed_percent` of the weight is out already. Backends
/// are taken out in the order of their addresses as long as their weights fit, so that balancers with the same health
/// states keep the same ones, in any order of failure. Drained and disabled backends and backups are not counted.
pub fn kept_in<'a>(service: &'a Service, health: &HealthView) -> Vec<&'a Backend> {
    let in_use =
        |backend: &&Backend| backend.admin == Admin::Enabled && backend.weight > 0 && !backend.backup;
    let weight: u64 = service
        .backends
        .iter()
        .filter(in_use)
        .map(|backend| u64::from(backend.weight))
        .sum();
    let mut room = weight * u64::from(service.max_removed_percent) / u64::from(ALL_PERCENT);
    let down = service
        .backends
        .iter()
        .filter(in_use)
        .filter(|backend| health_of(service, backend, health) == Health::Down);
    let mut down: BTreeMap<_, _> = down.map(|backend| (backend.address, backend)).collect();
    down.retain(|_, backend| match room.checked_sub(u64::from(backend.weight)) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    down.into_values().collect()
}

/// The health states, limited to max ejection: panic mode keeps the rest in service.
pub fn limited(desired: &Desired, health: &HealthView) -> HealthView {
    let mut view = health.clone();
    for service in desired.services.values() {
        for backend in kept_in(service, health) {
            let id = CheckId(service.name.clone(), backend.name.clone());
            view.insert(id, Health::Up);
        }
    }
    view
}

/// The backends that are down and take flows all the same in `target`, for whichever policy, by service.
pub fn panic_mode(
    desired: &Desired,
    health: &HealthView,
    target: &Target,
) -> BTreeMap<ServiceName, Vec<BackendName>> {
    let of = |service: &Service| {
        let there = target.services.get(&service.key)?;
        let names: Vec<BackendName> = service
            .backends
            .iter()
            .filter(|backend| health_of(service, backend, health) == Health::Down)
            .filter(|backend| {
                let there = there.backends.get(&backend.address);
                there.is_some_and(|there| there.weight > 0)
            })
            .map(|backend| backend.name.clone())
            .collect();
        (!names.is_empty()).then(|| (service.name.clone(), names))
    };
    desired
        .services
        .values()
        .filter_map(|service| of(service))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::testing;

    fn down(names: &[&str]) -> HealthView {
        names
            .iter()
            .map(|name| (testing::id("web", name), Health::Down))
            .collect()
    }

    #[test]
    fn checks_take_out_no_more_than_they_may() {
        for (percent, failed, kept) in [
            (100, &["a", "b", "c", "d"][..], &[][..]),
            (50, &["a", "b"], &[]),
            (50, &["a", "b", "c"], &["c"]),
            // The order of failure does not matter, only the set of failed backends.
            (50, &["d", "c", "b"], &["d"]),
            (50, &["a", "b", "c", "d"], &["c", "d"]),
            // A share smaller than one backend takes none out.
            (24, &["b"], &["b"]),
            (25, &["b"], &[]),
            (0, &["a", "b", "c", "d"], &["a", "b", "c", "d"]),
        ] {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
            service.max_removed_percent = percent;
            let names: Vec<&str> = kept_in(&service, &down(failed))
                .iter()
                .map(|backend| backend.name.as_str())
                .collect();
            assert_eq!(names, kept, "{percent} % with {failed:?} down");
        }
    }

    #[test]
    fn load_counts_and_not_heads_and_only_of_those_in_use() {
        let mut service = testing::service("web", 1, &[("a", 90), ("b", 5), ("c", 5), ("d", 900)]);
        service.max_removed_percent = 50;
        service.backends[3].admin = Admin::Draining;
        let names = |service: &Service, view: &HealthView| -> Vec<String> {
            let kept = kept_in(service, view);
            kept.iter().map(|backend| backend.name.to_string()).collect()
        };
        assert_eq!(names(&service, &down(&["a", "d"])), ["a"]);
        assert!(names(&service, &down(&["b", "c", "d"])).is_empty());
        // A backend that does not fit leaves the share to one that does.
        assert_eq!(names(&service, &down(&["a", "b", "c"])), ["a"]);
    }

    #[test]
    fn only_verdicts_that_are_overruled_change() {
        let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
        service.max_removed_percent = 50;
        let desired = testing::desired([service]);
        let mut expected = down(&["a", "b"]);
        let view = limited(&desired, &expected);
        expected.insert(testing::id("web", "b"), Health::Up);
        assert_eq!(view, expected);
    }

    proptest! {
        /// With any failures, the backends taken out stay within the share, and one more would not fit.
        #[test]
        fn the_share_is_kept_and_used(
            percent in 0..=ALL_PERCENT,
            backends in prop::collection::vec((0..1_000_u16, any::<bool>()), 1..20),
        ) {
            let names: Vec<String> = (0..backends.len()).map(|n| format!("b{n:02}")).collect();
            let list: Vec<(&str, u16)> = names.iter().zip(&backends)
                .map(|(name, (weight, _))| (name.as_str(), *weight))
                .collect();
            let mut service = testing::service("web", 1, &list);
            service.max_removed_percent = percent;
            let failed: Vec<&str> = names.iter().zip(&backends)
                .filter(|(_, (_, failed))| *failed)
                .map(|(name, _)| name.as_str())
                .collect();
            let kept: Vec<u64> = kept_in(&service, &down(&failed)).iter().map(|b| u64::from(b.weight)).collect();
            let sum = |wanted: bool| -> u64 {
                backends.iter().filter(|(_, failed)| !wanted || *failed).map(|(weight, _)| u64::from(*weight)).sum()
            };
            let removed = sum(true) - kept.iter().sum::<u64>();
            prop_assert!(100 * removed <= u64::from(percent) * sum(false));
            for weight in kept {
                prop_assert!(100 * (removed + weight) > u64::from(percent) * sum(false));
            }
        }
    }
}
