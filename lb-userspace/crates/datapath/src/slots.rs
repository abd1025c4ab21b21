//! The writer's state of slots: the start of their phase, the condition of its end, and the next phase.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use lb_common::{ring_slot::RingSlot, service::RingId, track::Table};

use crate::{
    plan::{Programmed, Step, Target},
    state::{guard::Prefix, service::ServiceKey},
    transition::{Ages, Rules, Walked},
};

/// Ages and rules of all rings.
#[derive(Debug, Default)]
pub(super) struct Slots {
    ages: BTreeMap<RingId, Ages>,
    rules: BTreeMap<ServiceKey, Rules>,
}

/// A ring with flows to sweep.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) ring: RingId,
    pub(super) slots: Arc<[RingSlot]>,
    pub(super) rules: Rules,
    /// Whether a slot is not stable.
    changing: bool,
}

impl Subject {
    /// Slots of the ring.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// How long a flow counts as active after its last packet, by the table that holds its record.
    pub(super) const fn counts_for(&self, table: Table) -> Duration {
        match table {
            Table::Opening => self.rules.half_open,
            Table::Tracked | Table::Seen if self.rules.all => self.rules.keep,
            Table::Tracked | Table::Seen => self.rules.window,
        }
    }
}

/// The rings of a service: its own, then those of its clients.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) rings: Vec<Subject>,
    /// Places in `rings`, by the clients' prefix, the longest first; other clients have the first ring.
    clients: Vec<(Prefix, usize)>,
}

impl Subjects {
    /// The place of a client's ring.
    pub(super) fn of_client(&self, client: IpAddr) -> usize {
        let of = self.clients.iter().find(|(prefix, _)| prefix.contains(client));
        of.map_or(0, |(_, place)| *place)
    }
}

/// All rings as they are in the kernel while no step is under way.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began: Duration,
    pub(super) subjects: BTreeMap<ServiceKey, Subjects>,
}

impl Round {
    /// Whether a slot waits for a sweep, or flows are to be counted.
    pub(super) fn is_needed(&self) -> bool {
        let mut subjects = self.subjects.values().flat_map(|subjects| &subjects.rings);
        subjects.any(|subject| subject.changing || subject.rules.all)
    }
}

impl Slots {
    /// The slots that an earlier daemon left.
    pub(super) fn restarted(programmed: &Programmed, now: Duration) -> Self {
        let mut slots = Self::default();
        slots.swapped(&BTreeMap::new(), &programmed.rings, now);
        slots
    }

    /// Takes up the settings of a target's services.
    pub(super) fn follow(&mut self, target: &Target) {
        let rules = target.services.iter().filter(|(_, service)| service.records());
        self.rules = rules
            .map(|(key, service)| {
                let (transition, idle) = (target.transition, service.idle);
                let rules = Rules::new(
                    key.protocol,
                    transition,
                    idle,
                    service.records_all(),
                    service.affinity.hash_by(),
                );
                (*key, rules)
            })
            .collect();
    }

    /// Takes note that rings were swapped, `now`.
    pub(super) fn swapped(
        &mut self,
        before: &BTreeMap<RingId, Arc<[RingSlot]>>,
        after: &BTreeMap<RingId, Arc<[RingSlot]>>,
        now: Duration,
    ) {
        self.ages.retain(|ring, _| after.contains_key(ring));
        for (ring, slots) in after {
            let ages = match before.get(ring) {
                Some(old) if Arc::ptr_eq(old, slots) => continue,
                Some(old) if old.len() == slots.len() => {
                    let mut ages = self.ages.remove(ring).unwrap_or_default();
                    ages.written(old, slots, now);
                    ages
                }
                Some(_) | None => Ages::restarted(slots, now),
            };
            if !ages.is_empty() {
                self.ages.insert(*ring, ages);
            }
        }
    }

    /// The rings to walk for, `now`.
    pub(super) fn round(&self, programmed: &Programmed, now: Duration) -> Round {
        let subjects = self.rules.iter().filter_map(|(key, rules)| {
            let service = programmed
                .services
                .get(key)
                .filter(|service| service.ring_size != 0)?;
            let subject = |ring: RingId| {
                Some(Subject {
                    ring,
                    slots: programmed.rings.get(&ring)?.clone(),
                    rules: *rules,
                    changing: self.ages.contains_key(&ring),
                })
            };
            let mut rings = vec![subject(service.ring)?];
            let mut clients = Vec::new();
            for (prefix, of) in programmed.clients.get(&service.id).into_iter().flatten() {
                let there = rings
                    .iter()
                    .position(|subject| of.ring_size != 0 && subject.ring == of.ring);
                // Without a ring, no place.
                let place = there.unwrap_or(rings.len());
                if place == rings.len() {
                    rings.extend(subject(of.ring).filter(|_| of.ring_size != 0));
                }
                clients.push((*prefix, if place < rings.len() { place } else { usize::MAX }));
            }
            clients.sort_by_key(|(prefix, _)| Reverse(prefix.length()));
            Some((*key, Subjects { rings, clients }))
        });
        Round {
            began: now,
            subjects: subjects.collect(),
        }
    }

    /// The rings that follow from a walk, `now`.
    pub(super) fn walked(
        &self,
        walked: &[(RingId, Walked)],
        programmed: &Programmed,
        now: Duration,
    ) -> Vec<Step> {
        let windows: BTreeMap<RingId, Duration> = self
            .rules
            .iter()
            .filter_map(|(key, rules)| Some((programmed.services.get(key)?, rules.window)))
            .flat_map(|(service, window)| {
                let clients = programmed.clients.get(&service.id).into_iter().flatten();
                let rings = clients.map(|(_, of)| of.ring).chain([service.ring]);
                rings.map(move |ring| (ring, window))
            })
            .collect();
        let step = |(ring, walked): &(RingId, Walked)| {
            let (slots, ages) = (programmed.rings.get(ring)?, self.ages.get(ring)?);
            let next = walked.finish(slots, ages, *windows.get(ring)?, now);
            (next != **slots).then(|| Step::WriteRing {
                ring: *ring,
                slots: next.into(),
            })
        };
        walked.iter().filter_map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        backend::BackendId,
        clients::ClientRing,
        flow::IdleTimeouts,
        hash::HashBy,
        service::{Service, ServiceId, TCP},
    };

    use super::*;
    use crate::state::service::Protocol;

    /// A flow is swept by the ring that its client has.
    #[test]
    fn a_round_has_the_rings_of_clients_and_the_longest_prefix_decides() {
        let (key, id) = (
            ServiceKey::new([192, 0, 2, 1].into(), 80, Protocol::Tcp),
            ServiceId(7),
        );
        let mut programmed = Programmed::default();
        let service = Service {
            id,
            ring: RingId(0),
            ring_size: 1,
            ..Service::default()
        };
        programmed.services.insert(key, service);
        for ring in 0..3 {
            let slots = [RingSlot::stable(BackendId(ring + 1))];
            programmed.rings.insert(RingId(ring), slots.into());
        }
        let clients = [("10.0.0.0/8", 1, 1), ("10.1.0.0/16", 2, 1), ("10.2.0.0/16", 0, 0)];
        for (prefix, ring, ring_size) in clients {
            let ring = ClientRing {
                ring_size,
                ring: RingId(ring),
                pad: 0,
            };
            let of_service = programmed.clients.entry(id).or_default();
            of_service.insert(prefix.parse().unwrap(), ring);
        }
        let idle = IdleTimeouts::of(TCP);
        let rules = Rules::new(Protocol::Tcp, Duration::from_secs(60), idle, false, HashBy::Tuple);
        let mut slots = Slots::default();
        slots.rules.insert(key, rules);
        let round = slots.round(&programmed, Duration::ZERO);
        let subjects = &round.subjects[&key];
        for (client, ring) in [
            ("192.0.2.9", Some(0)),
            ("10.9.0.1", Some(1)),
            ("10.1.0.1", Some(2)),
            // No backend takes or has its flows.
            ("10.2.0.1", None),
        ] {
            let place = subjects.of_client(client.parse().unwrap());
            let found = subjects.rings.get(place).map(|subject| subject.ring.0);
            assert_eq!(found, ring, "{client}");
        }
        assert_eq!(subjects.rings.len(), 3);
    }
}
