//! Rings that were built before, so that a change of one service does not cost building those of all others.

use std::collections::BTreeMap;

use super::{PlanError, Target};
use crate::{
    ring::{self, Share},
    state::service::ServiceKey,
};

/// The last ring of each service with what it was built from. Forgetting it costs time, nothing else.
#[derive(Debug, Default)]
pub(super) struct Rings {
    built: BTreeMap<ServiceKey, Built>,
}

#[derive(Debug)]
struct Built {
    size: u32,
    shares: Vec<Share>,
    owners: Vec<u16>,
}

impl Rings {
    /// The owners of a service's slots; see [`ring::maglev`].
    pub(super) fn owners(
        &mut self,
        key: ServiceKey,
        shares: Vec<Share>,
        size: u32,
    ) -> Result<&[u16], PlanError> {
        let known = self
            .built
            .get(&key)
            .is_some_and(|built| built.size == size && built.shares == shares);
        if !known {
            let owners = ring::maglev(&shares, size).map_err(|source| PlanError::Ring { key, source })?;
            self.built.insert(key, Built { size, shares, owners });
        }
        Ok(self.built.get(&key).map_or(&[], |built| built.owners.as_slice()))
    }

    /// Forgets services that are not in the target.
    pub(super) fn keep(&mut self, target: &Target) {
        self.built.retain(|key, _| target.services.contains_key(key));
    }
}
