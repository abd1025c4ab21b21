//! When drains end by themselves.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use crate::{
    control::verdicts,
    health::CheckId,
    state::{
        desired::Desired,
        names::{BackendName, ServiceName},
    },
};

/// A backend by its names.
type Id = (ServiceName, BackendName);

/// The end of a drain on both clocks: one only goes forward, the other is for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Deadline {
    at: Instant,
    wall: SystemTime,
}

/// The drains that end by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Drains(BTreeMap<Id, Deadline>);

impl Drains {
    /// Takes the drains of a desired state. A known one keeps its time on the monotonic clock, whatever has become of the other.
    pub(super) fn follow(&mut self, desired: &Desired, now: Instant, wall: SystemTime) {
        let mut next = BTreeMap::new();
        for (CheckId(service, name), _, backend) in verdicts::backends(desired) {
            let Some(until) = backend.drain_until else {
                continue;
            };
            let id = (service, name);
            let known = self.0.get(&id).copied().filter(|known| known.wall == until);
            let deadline = known.unwrap_or_else(|| Deadline {
                at: now + until.duration_since(wall).unwrap_or_default(),
                wall: until,
            });
            next.insert(id, deadline);
        }
        self.0 = next;
    }

    /// The next end.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|deadline| deadline.at).min()
    }

    /// The backends whose drain has ended.
    pub(super) fn ended(&self, now: Instant) -> Vec<Id> {
        let ended = self.0.iter().filter(|(_, deadline)| deadline.at <= now);
        ended.map(|(id, _)| id.clone()).collect()
    }

    /// Has a drain end later: the change to disable its backend failed.
    pub(super) fn postpone(&mut self, id: &Id, at: Instant) {
        if let Some(deadline) = self.0.get_mut(id) {
            deadline.at = at;
        }
    }

    /// The ends, for people.
    pub(super) fn walls(&self) -> BTreeMap<Id, SystemTime> {
        let wall = |(id, deadline): (&Id, &Deadline)| (id.clone(), deadline.wall);
        self.0.iter().map(wall).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::{backend::Admin, testing};

    /// A state whose backend drains until then.
    fn draining(until: SystemTime) -> Desired {
        let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
        service.backends[0].admin = Admin::Draining;
        service.backends[0].drain_until = Some(until);
        testing::desired([service])
    }

    #[test]
    fn a_drain_ends_on_time_although_the_wall_clock_is_set() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let until = wall + Duration::from_secs(60);
        let mut drains = Drains::default();
        drains.follow(&draining(until), start, wall);
        assert_eq!(drains.next(), Some(after(60)));
        // An hour back: the drain is known, and keeps its end.
        drains.follow(&draining(until), after(1), wall - Duration::from_secs(3_600));
        assert_eq!(drains.next(), Some(after(60)));
        assert!(drains.ended(after(59)).is_empty());
        let id = ("web".parse().unwrap(), "a".parse().unwrap());
        assert_eq!(drains.ended(after(60)), [id]);
        assert_eq!(drains.walls().into_values().collect::<Vec<_>>(), [until]);
    }

    #[test]
    fn an_end_that_fails_is_tried_later_and_one_that_is_over_at_once() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut drains = Drains::default();
        drains.follow(&draining(wall - Duration::from_secs(5)), start, wall);
        let [id] = &drains.ended(start)[..] else {
            panic!("{drains:?}");
        };
        drains.postpone(&id.clone(), start + Duration::from_secs(1));
        assert!(drains.ended(start).is_empty());
        drains.follow(&Desired::default(), start, wall);
        assert_eq!(drains.next(), None, "its backend was enabled, or is gone");
    }
}
