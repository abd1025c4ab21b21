//! What a change would make of the state: computed aside, since validation and rings of a large one take long. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::diff::{self, Diff},
    control::{Change, ControlError, reach::refuse_own_backends},
    datapath::HostAddresses,
    health::agent::AgentView,
    state::{
        agents,
        effective::HealthView,
        moves::{self, Moves},
        names::ServiceName,
        removals::Removals,
        ring_sizes::RingSizes,
        stored::Stored,
    },
};

/// The state that a change is made to.
pub(super) struct Present {
    pub(super) stored: Stored,
    pub(super) host: Arc<HostAddresses>,
    pub(super) health: HealthView,
    pub(super) agents: AgentView,
    pub(super) ring_sizes: RingSizes,
}

/// A valid change.
pub(super) struct Proposal {
    /// The state after it.
    pub(super) next: Stored,
    pub(super) diff: Diff,
    /// The part of `diff` that undoes changes made by command; empty unless a file makes the change.
    pub(super) replaced: Diff,
    /// What it removes that is not confirmed.
    pub(super) unconfirmed: Option<Removals>,
    /// Its effect on flows.
    pub(super) moves: BTreeMap<ServiceName, Moves>,
}

impl Proposal {
    /// Validates a change, for a `dry_run` as if all that it removes were confirmed.
    ///
    /// # Errors
    /// As [`Change::follow`], and [`ControlError::OwnAddress`]
    pub(super) fn of(change: &Change, present: &Present, dry_run: bool) -> Result<Self, ControlError> {
        let Present {
            stored,
            host,
            health,
            agents,
            ring_sizes,
        } = present;
        let next = if dry_run {
            change.confirmed().follow(stored)
        } else {
            change.follow(stored)
        }?;
        let (old, new) = (&*stored.desired, &*next.desired);
        refuse_own_backends(old, new, host)?;
        let unconfirmed = change.may_remove().and_then(|may| {
            let removals = Removals::to_confirm(old, new)?;
            (!removals.allowed(may)).then_some(removals)
        });
        let replaced = if matches!(change, Change::File(..)) {
            stored.replaced_by(new)
        } else {
            Diff::default()
        };
        let moves = moves::moves(
            &agents::in_force(old, agents),
            &agents::in_force(new, agents),
            &agents::judged(health, agents),
            change.at_once(),
            ring_sizes,
        );
        Ok(Self {
            diff: diff::diff(old, new),
            replaced,
            unconfirmed,
            moves,
            next,
        })
    }
}
