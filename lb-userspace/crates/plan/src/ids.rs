//! Ids that can be given out.

use std::collections::BTreeSet;

use lb_common::backend::{BackendId, Generation};

use crate::{error::PlanError, programmed::Programmed};

/// Ids of services or rings that can be given out, lowest first.
pub(super) struct FreeIds {
    of: &'static str,
    used: BTreeSet<u16>,
    candidates: std::ops::Range<u32>,
}

impl FreeIds {
    pub(super) fn new(of: &'static str, used: impl Iterator<Item = u16>, limit: u32) -> Self {
        Self {
            of,
            used: used.collect(),
            candidates: 0..limit,
        }
    }

    pub(super) fn take(&mut self) -> Result<u16, PlanError> {
        let used = &self.used;
        let mut free = self
            .candidates
            .by_ref()
            .filter_map(|id| u16::try_from(id).ok())
            .filter(|id| !used.contains(id));
        free.next().ok_or(PlanError::IdsExhausted { of: self.of })
    }
}

/// Free backend ids: never used ones first, then the least often used, so that a generation number wraps around as late
/// as possible.
pub(super) struct FreeBackends<'a> {
    programmed: &'a Programmed,
    fresh: std::ops::RangeInclusive<u16>,
    used: Option<std::vec::IntoIter<(Generation, BackendId)>>,
}

impl<'a> FreeBackends<'a> {
    pub(super) fn new(programmed: &'a Programmed) -> Self {
        Self {
            programmed,
            fresh: 1..=u16::MAX,
            used: None,
        }
    }

    /// A free id and the generation it now gets.
    pub(super) fn take(&mut self) -> Result<(BackendId, Generation), PlanError> {
        let Programmed {
            backends,
            generations,
            ..
        } = self.programmed;
        let mut fresh = self.fresh.by_ref().map(BackendId);
        if let Some(id) = fresh.find(|id| !generations.contains_key(id) && !backends.contains_key(id)) {
            return Ok((id, Generation(1)));
        }
        let used = self.used.get_or_insert_with(|| {
            let mut free: Vec<_> = generations
                .iter()
                .filter(|(id, _)| !backends.contains_key(id))
                .map(|(id, generation)| (*generation, *id))
                .collect();
            free.sort_unstable();
            free.into_iter()
        });
        let (last, id) = used.next().ok_or(PlanError::IdsExhausted { of: "backend" })?;
        Ok((id, last.next()))
    }
}
