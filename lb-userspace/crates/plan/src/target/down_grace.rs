//! Established flows of a backend that went down stay with it for a while (`on_down_after`): most outages that two fast
//! checks notice are blips, and a reset connection is lost. New flows go elsewhere at once. A backend that only its
//! circuit breaker takes out keeps its flows while the breaker is open: its checks succeed, and clients' packets alone
//! opened the breaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    time::Instant,
};

use super::{
    backend::Admin,
    content::Target,
    desired::Desired,
    effective::HealthView,
    service::{OnDown, Service, ServiceKey},
};
use crate::health::{CheckId, Health};

/// Where a backend stands in the data plane.
type Place = (ServiceKey, SocketAddr);

/// Since when backends are down that had established flows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DownGrace {
    since: BTreeMap<Place, Instant>,
    /// Backends that are down by their breaker alone.
    by_breaker: BTreeSet<CheckId>,
    next: Option<Instant>,
}

impl DownGrace {
    /// Takes over a backend that is down and still had its flows under an earlier daemon: its time starts over.
    pub fn inherit(&mut self, service: &Service, address: SocketAddr, now: Instant) {
        self.since.insert((service.key, address), now);
    }

    /// Records whether a backend is down by its breaker alone. Returns whether that changed.
    pub fn note_breaker(&mut self, id: &CheckId, alone: bool) -> bool {
        if alone {
            self.by_breaker.insert(id.clone())
        } else {
            self.by_breaker.remove(id)
        }
    }

    /// Keeps the established flows of backends that went down less than `on_down_after` ago. `health` has the health
    /// states behind `target`, `programmed` is in force: only a backend that has its flows there can keep them.
    pub fn keep_flows(
        &mut self,
        mut target: Target,
        desired: &Desired,
        health: &HealthView,
        programmed: Option<&Target>,
        now: Instant,
    ) -> Target {
        let mut known = mem::take(&mut self.since);
        self.next = None;
        self.by_breaker.retain(|id| health.get(id) == Some(&Health::Down));
        let down = health.iter().filter(|(_, health)| **health == Health::Down);
        for (id, _) in down {
            let (Ok(service), Ok(backend)) = (desired.service(&id.0), desired.backend(&id.0, &id.1)) else {
                continue;
            };
            if service.on_down == OnDown::Keep || backend.admin == Admin::Disabled {
                continue;
            }
            let place = (service.key, backend.address);
            let had_flows = is_alive(programmed, &place).then_some(now);
            let Some(since) = known.remove(&place).or(had_flows) else {
                continue;
            };
            // While only the breaker is open, the time has not begun.
            let by_breaker = self.by_breaker.contains(id);
            let since = if by_breaker { now } else { since };
            let until = since.checked_add(service.on_down_after).unwrap_or(since);
            self.since.insert(place, since);
            if (until <= now && !by_breaker) || is_alive(Some(&target), &place) {
                continue;
            }
            if let Some(service) = target.services.get_mut(&place.0)
                && let Some(there) = service.backends.get_mut(&place.1)
            {
                there.alive = true;
                if !by_breaker {
                    self.next = Some(self.next.map_or(until, |next| next.min(until)));
                }
            }
        }
        target
    }

    /// When the flows of a backend move next.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }
}

fn is_alive(target: Option<&Target>, (service, address): &Place) -> bool {
    target
        .and_then(|target| target.services.get(service)?.backends.get(address))
        .is_some_and(|there| there.alive)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        state::testing,
        target::effective::{self, RemovedBackends},
    };

    const AFTER: Duration = Duration::from_secs(3);

    /// One service with two backends, of which checks judge the second.
    struct Site {
        desired: Desired,
        grace: DownGrace,
        programmed: Option<Target>,
        start: Instant,
    }

    impl Site {
        fn new(change: impl FnOnce(&mut Service)) -> Self {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
            service.on_down_after = AFTER;
            change(&mut service);
            Self {
                desired: testing::desired([service]),
                grace: DownGrace::default(),
                programmed: None,
                start: Instant::now(),
            }
        }

        /// Applies the second backend's health state at `millis`; returns whether it takes new flows, and whether it
        /// keeps its flows.
        fn at(&mut self, millis: u64, health: Health) -> (bool, bool) {
            self.both_at(millis, [Health::Unchecked, health])
        }

        /// The same for the second backend, where the first one is judged, too.
        fn both_at(&mut self, millis: u64, health: [Health; 2]) -> (bool, bool) {
            let now = self.start + Duration::from_millis(millis);
            let Some(service) = self.desired.services.values().next() else {
                panic!("no service");
            };
            let (key, backend) = (service.key, service.backends[1].clone());
            let view: HealthView = [testing::id("web", "a"), testing::id("web", "b")]
                .into_iter()
                .zip(health)
                .collect();
            let target = effective::target(&self.desired, &view, &RemovedBackends::new());
            let target = self
                .grace
                .keep_flows(target, &self.desired, &view, self.programmed.as_ref(), now);
            let there = target.services[&key].backends[&backend.address];
            self.programmed = Some(target);
            (there.weight > 0, there.alive)
        }
    }

    #[test]
    fn flows_outlive_a_blip_and_leave_a_backend_that_stays_down() {
        let mut site = Site::new(|_| ());
        assert_eq!(site.at(0, Health::Up), (true, true));
        assert_eq!(site.at(100, Health::Down), (false, true));
        assert_eq!(site.grace.next(), Some(site.start + Duration::from_millis(3_100)));
        assert_eq!(site.at(1_100, Health::Up), (true, true));
        assert_eq!(site.grace.next(), None);
        // Its time does not continue from the earlier blip.
        assert_eq!(site.at(2_000, Health::Down), (false, true));
        assert_eq!(site.at(4_999, Health::Down), (false, true));
        assert_eq!(site.at(5_000, Health::Down), (false, false));
        assert_eq!(site.grace.next(), None);
        // Moved flows do not return.
        assert_eq!(site.at(5_001, Health::Down), (false, false));
    }

    #[test]
    fn of_several_backends_the_first_one_decides_when_flows_move_next() {
        let mut site = Site::new(|_| ());
        site.both_at(0, [Health::Up, Health::Up]);
        site.both_at(1_000, [Health::Down, Health::Up]);
        assert_eq!(site.both_at(2_000, [Health::Down, Health::Down]), (false, true));
        assert_eq!(site.grace.next(), Some(site.start + Duration::from_millis(4_000)));
        assert_eq!(site.both_at(4_000, [Health::Down, Health::Down]), (false, true));
        assert_eq!(site.grace.next(), Some(site.start + Duration::from_millis(5_000)));
    }

    #[test]
    fn a_backend_without_flows_gets_none_back() {
        let mut site = Site::new(|_| ());
        assert_eq!(site.at(0, Health::Down), (false, false));
        assert_eq!(site.at(1, Health::Down), (false, false));
    }

    #[test]
    fn the_policy_and_the_operator_decide_first() {
        let mut at_once = Site::new(|service| service.on_down_after = Duration::ZERO);
        at_once.at(0, Health::Up);
        assert_eq!(at_once.at(1, Health::Down), (false, false));
        let mut keep = Site::new(|service| service.on_down = OnDown::Keep);
        keep.at(0, Health::Up);
        assert_eq!(keep.at(1, Health::Down), (false, true));
        assert_eq!(keep.at(10_000, Health::Down), (false, true));
        // Another policy gives a backend that is down its time from there on.
        keep.desired = Site::new(|_| ()).desired;
        assert_eq!(keep.at(10_001, Health::Down), (false, true));
        assert_eq!(keep.at(13_001, Health::Down), (false, false));
        let mut disabled = Site::new(|_| ());
        disabled.at(0, Health::Up);
        assert_eq!(disabled.at(1, Health::Down), (false, true));
        disabled.desired = Site::new(|service| service.backends[1].admin = Admin::Disabled).desired;
        assert_eq!(disabled.at(2, Health::Down), (false, false));
    }

    #[test]
    fn an_open_breaker_moves_no_flow_until_checks_fail_too() {
        let id = testing::id("web", "b");
        for after in [Duration::ZERO, AFTER] {
            let mut site = Site::new(|service| service.on_down_after = after);
            assert_eq!(site.at(0, Health::Up), (true, true));
            assert!(site.grace.note_breaker(&id, true));
            assert_eq!(site.at(1, Health::Down), (false, true));
            assert_eq!(site.at(60_000, Health::Down), (false, true));
            assert_eq!(site.grace.next(), None);
            assert!(site.grace.note_breaker(&id, false));
            let keeps = (false, !after.is_zero());
            assert_eq!(site.at(60_001, Health::Down), keeps, "its time begins now");
            assert_eq!(site.at(63_000, Health::Down), (false, false));
        }
        let mut site = Site::new(|_| ());
        site.grace.note_breaker(&id, true);
        site.at(0, Health::Up);
        assert!(
            site.grace.by_breaker.is_empty(),
            "a backend that is up is forgotten"
        );
    }

    #[test]
    fn a_restart_leaves_flows_where_they_are() {
        let mut site = Site::new(|_| ());
        let service = site.desired.services.values().next().unwrap().clone();
        site.grace
            .inherit(&service, service.backends[1].address, site.start);
        assert_eq!(site.at(0, Health::Down), (false, true));
        assert_eq!(site.at(3_000, Health::Down), (false, false));
    }
}
