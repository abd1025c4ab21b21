//! Rings of clients that go to groups of backends: [`crate::groups`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    clients::ClientRing,
    service::{BY_CLIENTS, RingId, ServiceId},
};

use crate::{
    draft::{Built, Draft, Members},
    error::PlanError,
    groups::{Group, is_stable, longest},
    state::{guard::Prefix, service::ServiceKey},
    step::Step,
    target::content::TargetService,
};

impl Draft<'_> {
    /// Plans the rings of a service's clients, beside its own ring; returns the flag of its record.
    pub(super) fn client_rings(
        &mut self,
        key: ServiceKey,
        id: ServiceId,
        target: &TargetService,
        members: &Members,
        own: Option<&Built>,
    ) -> Result<u16, PlanError> {
        let none = BTreeMap::new();
        let before = self.programmed.clients.get(&id).unwrap_or(&none);
        let own_before = self.ring_before(key);
        let remembers = target.remembers();
        // Clients of a prefix that has gone keep their ring until they would find the same slots without it.
        let left = before.keys().filter(|_| remembers);
        let mut prefixes: Vec<&Prefix> = target.clients.keys().chain(left).collect();
        prefixes.sort_unstable_by_key(|prefix| (prefix.length(), **prefix));
        prefixes.dedup();

        let class = |ring: Option<ClientRing>| ring.filter(|_| remembers).map(|ring| ring.ring);
        let mut built = BTreeMap::from([((class(own_before), Group::GENERAL), own.cloned())]);
        let mut spare: Vec<Built> = Vec::new();
        let mut of_prefix: BTreeMap<Prefix, Option<Built>> = BTreeMap::new();
        for prefix in prefixes {
            let group = target.group_of(prefix);
            let ring_before = longest(before, prefix)
                .copied()
                .filter(|ring| ring.ring_size != 0)
                .or(own_before);
            let mut of = class(ring_before);
            if let Some(equal) = built
                .keys()
                .find(|(other, to)| *to == group && self.are_equal(*other, of))
            {
                of = equal.0;
            }
            let ring = match built.get(&(of, group)) {
                Some(ring) => ring.clone(),
                None => {
                    let ring = self.ring(key, target, members, group, ring_before)?;
                    let mut of_group = built.iter().filter(|((_, to), _)| *to == group);
                    let equal = of_group.find(|(_, other)| is_same(other.as_ref(), ring.as_ref()));
                    let one = equal.map_or_else(|| ring.clone(), |(_, other)| other.clone());
                    built.insert((of, group), one.clone());
                    spare.extend(ring);
                    one
                }
            };
            let around = longest(&of_prefix, prefix).map_or(own, Option::as_ref);
            if target.clients.contains_key(prefix) || !is_same(around, ring.as_ref()) {
                of_prefix.insert(*prefix, ring);
            }
        }

        let used: BTreeSet<RingId> = of_prefix
            .values()
            .map(Option::as_ref)
            .chain([own])
            .flatten()
            .map(|(ring, _)| *ring)
            .collect();
        for (ring, _) in spare.iter().filter(|(ring, _)| !used.contains(ring)) {
            self.kept_rings.remove(ring);
            self.write_rings
                .retain(|step| !matches!(step, Step::WriteRing { ring: of, .. } if of == ring));
        }
        let flag = if of_prefix.is_empty() { 0 } else { BY_CLIENTS };
        let record = |ring: Option<Built>| {
            ring.map_or_else(ClientRing::default, |(ring, _)| ClientRing {
                ring_size: target.ring_size,
                ring,
                pad: 0,
            })
        };
        let records = of_prefix.into_iter().map(|(prefix, ring)| (prefix, record(ring)));
        self.clients.set(id, records.collect());
        Ok(flag)
    }

    /// Whether two programmed rings lead all flows to the same backends.
    fn are_equal(&self, one: Option<RingId>, other: Option<RingId>) -> bool {
        let slots = |ring: Option<RingId>| ring.and_then(|ring| self.programmed.rings.get(&ring));
        one == other
            || match (slots(one), slots(other)) {
                (Some(one), Some(other)) => is_stable(one) && one == other,
                (None, _) | (_, None) => false,
            }
    }
}

/// Whether two rings lead all flows to the same backends.
fn is_same(one: Option<&Built>, other: Option<&Built>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some((one, slots)), Some((other, others))) => {
            one == other || (is_stable(slots) && (Arc::ptr_eq(slots, others) || slots == others))
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}
