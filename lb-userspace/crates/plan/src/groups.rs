//! Groups of a service's backends, and the rings of the clients that go to them.
//!
//! Each prefix of such clients has a ring, which it keeps: a change of the group's backends, and a group without any, are changes of
//! that ring's slots, so flows are followed as in any ring ([`crate::transition`]). A prefix that goes to another group continues the
//! ring that its clients had before: so there are as many rings as there are pairs of a ring before and a group. Rings of one group
//! that have become equal are one again at the next plan.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use lb_common::{
    clients::ClientRing,
    ring_slot::{Phase, RingSlot},
    service::ServiceId,
};

use super::{Programmed, Step, TargetService, ring::Share};
use crate::state::guard::Prefix;

/// A group of backends of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Group(pub u16);

impl Group {
    /// All backends of groups that no table of clients names, and of no group. Clients without a table go to it.
    pub const GENERAL: Self = Self(0);
}

/// The backends that take the new flows of a group's clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakenBy {
    /// The group's own.
    Own,
    /// [`Group::GENERAL`], while the group's own take none.
    General,
    /// All, while neither of the two takes any.
    All,
    /// None: no backend takes new flows.
    None,
}

impl TakenBy {
    /// The rule for a group: `backends` are groups, and whether a backend takes new flows.
    pub fn of(group: Group, backends: impl Iterator<Item = (Group, bool)>) -> Self {
        let taking: BTreeSet<Group> = backends
            .filter(|(_, takes)| *takes)
            .map(|(group, _)| group)
            .collect();
        if taking.contains(&group) {
            Self::Own
        } else if taking.contains(&Group::GENERAL) {
            Self::General
        } else if taking.is_empty() {
            Self::None
        } else {
            Self::All
        }
    }

    /// Whether the clients of `group` go to backends of another one.
    const fn includes(self, group: Group, of: Group) -> bool {
        match self {
            Self::Own => of.0 == group.0,
            Self::General => of.0 == Group::GENERAL.0,
            Self::All | Self::None => true,
        }
    }
}

impl TargetService {
    /// The backends that take the new flows of a group's clients.
    pub fn taken_by(&self, group: Group) -> TakenBy {
        let backends = self.backends.values();
        TakenBy::of(group, backends.map(|backend| (backend.group, backend.weight > 0)))
    }

    /// The shares of all backends, `shares`, in the ring of a group's clients.
    pub(super) fn shares_of(&self, group: Group, shares: &[Share]) -> Vec<Share> {
        let taken_by = self.taken_by(group);
        let with_groups = shares.iter().zip(self.backends.values());
        let share = |(share, backend): (&Share, &super::TargetBackend)| Share {
            identity: share.identity,
            weight: if taken_by.includes(group, backend.group) {
                share.weight
            } else {
                0
            },
        };
        with_groups.map(share).collect()
    }

    /// The group of the clients of a prefix: that of the longest prefix around it.
    pub(super) fn group_of(&self, prefix: &Prefix) -> Group {
        longest(&self.clients, prefix).copied().unwrap_or_default()
    }
}

/// The value of the longest of these prefixes that contains another one, or is it.
pub(super) fn longest<'a, V>(of: &'a BTreeMap<Prefix, V>, prefix: &Prefix) -> Option<&'a V> {
    let lengths = (0..=prefix.length()).rev();
    let mut around = lengths.map(|length| Prefix::around(prefix.address(), length));
    around.find_map(|around| of.get(&around))
}

/// Whether no slot of a ring is about to leave its phase.
pub(super) fn is_stable(slots: &[RingSlot]) -> bool {
    slots.iter().all(|slot| slot.phase() == Phase::Stable)
}

/// The rings of clients in a plan under construction.
#[derive(Default)]
pub(super) struct ClientRings {
    wanted: BTreeMap<ServiceId, BTreeMap<Prefix, ClientRing>>,
}

impl ClientRings {
    /// Sets the rings of a service's clients.
    pub(super) fn set(&mut self, service: ServiceId, rings: BTreeMap<Prefix, ClientRing>) {
        if !rings.is_empty() {
            self.wanted.insert(service, rings);
        }
    }

    /// Writes before the services'. The longest prefix first: a client keeps its ring until its new prefix is written.
    pub(super) fn writes(&self, programmed: &Programmed) -> Vec<Step> {
        let mut steps = Vec::new();
        for (service, rings) in &self.wanted {
            let there = programmed.clients.get(service);
            let mut new: Vec<_> = rings
                .iter()
                .filter(|(prefix, ring)| there.and_then(|there| there.get(prefix)) != Some(ring))
                .collect();
            new.sort_by_key(|(prefix, _)| Reverse(prefix.length()));
            steps.extend(new.into_iter().map(|(prefix, ring)| Step::WriteClients {
                service: *service,
                prefix: *prefix,
                ring: *ring,
            }));
        }
        steps
    }

    /// Removals, after the services' writes, and before backends die that are in their rings. The shortest prefix first, for the
    /// same reason.
    pub(super) fn removals(&self, programmed: &Programmed) -> Vec<Step> {
        let mut steps = Vec::new();
        for (service, there) in &programmed.clients {
            let wanted = self.wanted.get(service);
            let mut gone: Vec<&Prefix> = there
                .keys()
                .filter(|prefix| !wanted.is_some_and(|wanted| wanted.contains_key(prefix)))
                .collect();
            gone.sort_by_key(|prefix| prefix.length());
            steps.extend(gone.into_iter().map(|prefix| Step::RemoveClients {
                service: *service,
                prefix: *prefix,
            }));
        }
        steps
    }
}
