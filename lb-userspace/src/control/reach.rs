//! Which backends cannot be reached, even if their checks succeed: a check may go over loopback, or by other interfaces
//! than the program's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::error::ControlError;
use crate::{
    datapath::{HostAddresses, NextHopState, NextHops},
    state::{desired::Desired, effective::Blocked},
};

/// Time for which a route must be missing before its backends take no flows: a link that is down for a moment changes
/// no ring.
pub(super) const ROUTE_LOST_AFTER: Duration = Duration::from_secs(2);

/// A change of reachability.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Nothing can be sent to the address, and why.
    Blocked(IpAddr, String),
    /// The address can be reached again.
    Free(IpAddr),
}

/// The addresses that cannot be reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach(BTreeMap<IpAddr, Block>);

#[derive(Clone, Debug)]
struct Block {
    /// Why.
    error: String,
    /// When it counts.
    from: Instant,
    /// Whether it was reported.
    reported: bool,
}

impl Reach {
    /// Takes the next hops of addresses at `now`; returns the changes.
    pub(super) fn update(&mut self, ways: &NextHops, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        self.0.retain(|address, block| {
            let blocked = ways.get(address).is_some_and(NextHopState::is_blocked);
            // No report for an address that is not resolved any more.
            if !blocked && block.reported && ways.contains_key(address) {
                news.push(News::Free(*address));
            }
            blocked
        });
        for (address, way) in ways.iter().filter(|(_, way)| way.is_blocked()) {
            let wait = match way {
                NextHopState::Unreachable => ROUTE_LOST_AFTER,
                NextHopState::Local
                | NextHopState::NotEthernet { .. }
                | NextHopState::TooManyTags { .. }
                | NextHopState::Reached { .. }
                | NextHopState::Waiting { .. } => Duration::ZERO,
            };
            let error = way.error().unwrap_or_default();
            let block = self.0.entry(*address).or_insert_with(|| Block {
                error: error.clone(),
                from: now + wait,
                reported: false,
            });
            block.from = block.from.min(now + wait);
            block.reported &= block.error == error;
            block.error = error;
            if block.from <= now && !block.reported {
                block.reported = true;
                news.push(News::Blocked(*address, block.error.clone()));
            }
        }
        news
    }

    /// The addresses to which nothing can be sent.
    pub(super) fn blocked(&self, now: Instant) -> Blocked {
        let counts = self.0.iter().filter(|(_, block)| block.from <= now);
        counts.map(|(address, _)| *address).collect()
    }

    /// When [`Self::update`] has something to report although no way changes.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|block| !block.reported);
        waiting.map(|block| block.from).min()
    }
}

/// Refuses backends that `new` has and `old` has not, at an address of this machine.
///
/// # Errors
/// [`ControlError::OwnAddress`] for the first.
pub(super) fn refuse_own_backends(
    old: &Desired,
    new: &Desired,
    host: &HostAddresses,
) -> Result<(), ControlError> {
    for (name, service) in &new.services {
        let before = old.services.get(name);
        if before.is_some_and(|before| before.is_same(service)) {
            continue;
        }
        for backend in &service.backends {
            let address = backend.address.ip();
            let is_new = before.is_none_or(|before| {
                let mut there = before.backends.iter();
                !there.any(|there| there.name == backend.name && there.address.ip() == address)
            });
            if is_new && host.is_own(address) {
                return Err(ControlError::OwnAddress {
                    service: name.clone(),
                    backend: backend.name.clone(),
                    address,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{service::Service, testing};

    fn ways(ways: &[(&str, NextHopState)]) -> NextHops {
        let ways = ways.iter();
        ways.map(|(address, way)| (address.parse().unwrap(), way.clone()))
            .collect()
    }

    fn reached() -> NextHopState {
        NextHopState::Reached {
            via: "10.0.0.254".parse().unwrap(),
            interface: "eth0".to_owned(),
            answering: false,
            source: None,
        }
    }

    #[test]
    fn a_way_that_cannot_be_counts_at_once_and_a_lost_route_after_a_while() {
        let (mut reach, start) = (Reach::default(), crate::clock::now());
        let [own, far] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
        let lost = ways(&[
            ("10.0.0.1", NextHopState::Local),
            ("10.0.0.2", NextHopState::Unreachable),
        ]);
        let reported = reach.update(&lost, start);
        assert!(
            matches!(&reported[..], [News::Blocked(address, _)] if *address == own),
            "{reported:?}"
        );
        assert_eq!(reach.blocked(start), Blocked::from([own]));
        assert_eq!(reach.next(), Some(start + ROUTE_LOST_AFTER));

        // Back in time: no report.
        let back = ways(&[("10.0.0.1", NextHopState::Local), ("10.0.0.2", reached())]);
        assert_eq!(reach.update(&back, start + ROUTE_LOST_AFTER / 2), []);
        assert_eq!(reach.next(), None);

        assert_eq!(reach.update(&lost, start), []);
        let end = start + ROUTE_LOST_AFTER;
        assert_eq!(
            reach.update(&lost, end),
            [News::Blocked(far, "no route to it".to_owned())]
        );
        assert_eq!(reach.blocked(end), Blocked::from([own, far]));
        assert_eq!(reach.update(&back, end), [News::Free(far)]);
        assert_eq!(
            reach.update(&NextHops::new(), end),
            [],
            "backends that were removed"
        );
        assert_eq!(reach.blocked(end), Blocked::new());
    }

    #[test]
    fn changed_reason_is_reported_at_once() {
        let (mut reach, start) = (Reach::default(), crate::clock::now());
        let far: IpAddr = "10.0.0.2".parse().unwrap();
        let lost = ways(&[("10.0.0.2", NextHopState::Unreachable)]);
        let own = ways(&[("10.0.0.2", NextHopState::Local)]);
        assert_eq!(reach.update(&lost, start), []);
        for ways in [own, lost] {
            let reported = reach.update(&ways, start);
            assert!(
                matches!(&reported[..], [News::Blocked(address, _)] if *address == far),
                "{reported:?}"
            );
            assert_eq!(reach.blocked(start), Blocked::from([far]));
        }
    }

    #[test]
    fn a_backend_at_an_own_address_is_refused_by_name_unless_it_is_there_already() {
        let old = testing::desired([testing::service("web", 1, &[("a", 1)])]);
        let new = testing::desired([testing::service("web", 1, &[("a", 1), ("b", 1)])]);
        let address = |index: usize| new.services.values().next().unwrap().backends[index].address.ip();
        let host = |index| HostAddresses::of([address(index)]);
        let error = refuse_own_backends(&old, &new, &host(1)).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("web/b") && message.contains(&address(1).to_string()),
            "{message}"
        );
        let with = |change: &dyn Fn(&mut Service)| {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
            change(&mut service);
            testing::desired([service])
        };
        let weighs = with(&|service| service.backends[1].weight = 9);
        assert!(refuse_own_backends(&new, &weighs, &host(1)).is_ok());
        let elsewhere = with(&|service| service.backends[1].address.set_ip("10.0.1.9".parse().unwrap()));
        assert!(
            refuse_own_backends(&elsewhere, &new, &host(1)).is_err(),
            "it moves there"
        );
        assert!(refuse_own_backends(&old, &new, &HostAddresses::default()).is_ok());
        let loopback: IpAddr = "127.1.2.3".parse().unwrap();
        assert!(HostAddresses::default().is_own(loopback));
    }
}
