//! Rings that were built before, so that a change of one service does not cost building those of all others.

use std::collections::BTreeMap;

use super::{PlanError, Target};
use crate::{
    ring::{self, Share},
    state::service::{Algorithm, ServiceKey},
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
    algorithm: Algorithm,
    owners: Vec<u16>,
}

impl Rings {
    /// The owners of a service's slots; see [`ring::maglev`] and [`ring::in_turn`].
    pub(super) fn owners(
        &mut self,
        key: ServiceKey,
        shares: Vec<Share>,
        size: u32,
        algorithm: Algorithm,
    ) -> Result<&[u16], PlanError> {
        let known = self.built.get(&key).is_some_and(|built| {
            built.size == size && built.shares == shares && built.algorithm == algorithm
        });
        if !known {
            let owners = match algorithm {
                Algorithm::Maglev => ring::maglev(&shares, size),
                Algorithm::RoundRobin => ring::in_turn(&shares, size),
            };
            let owners = owners.map_err(|source| PlanError::Ring { key, source })?;
            let built = Built {
                size,
                shares,
                algorithm,
                owners,
            };
            self.built.insert(key, built);
        }
        Ok(self.built.get(&key).map_or(&[], |built| built.owners.as_slice()))
    }

    /// Forgets services that are not in the target.
    pub(super) fn keep(&mut self, target: &Target) {
        self.built.retain(|key, _| target.services.contains_key(key));
    }
}
