//! Groups of a service's backends.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::ring_slot::{Phase, RingSlot};

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
    pub(super) const fn includes(self, group: Group, of: Group) -> bool {
        match self {
            Self::Own => of.0 == group.0,
            Self::General => of.0 == Group::GENERAL.0,
            Self::All | Self::None => true,
        }
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
