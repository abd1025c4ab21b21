//! The writer's state of slots: the start of their phase, the condition of its end, and the next phase.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lb_common::{ring_slot::RingSlot, service::RingId, track::Table};

use crate::{
    plan::{Programmed, Step, Target},
    state::service::ServiceKey,
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

/// All rings as they are in the kernel while no step is under way.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began: Duration,
    pub(super) subjects: BTreeMap<ServiceKey, Subject>,
}

impl Round {
    /// Whether a slot waits for a sweep, or flows are to be counted.
    pub(super) fn is_needed(&self) -> bool {
        let mut subjects = self.subjects.values();
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
            let ring = programmed
                .services
                .get(key)
                .filter(|service| service.ring_size != 0)?
                .ring;
            let subject = Subject {
                ring,
                slots: programmed.rings.get(&ring)?.clone(),
                rules: *rules,
                changing: self.ages.contains_key(&ring),
            };
            Some((*key, subject))
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
            .filter_map(|(key, rules)| Some((programmed.services.get(key)?.ring, rules.window)))
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
