//! The last plan's result for each service, so that the next plan examines only changed services. Dropping it only
//! costs time.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::{backend::BackendId, ring_slot::RingSlot, service::Service as ServiceRecord};

use crate::{
    programmed::{Programmed, ProgrammedBackend},
    state::{service::ServiceKey, shared::Shared},
    target::content::{Target, TargetService},
};

/// A service as it stands when the plan that saw it last is carried out.
#[derive(Debug)]
pub(super) struct PlannedService {
    /// The target that it was planned for.
    pub(super) target: Shared<TargetService>,
    /// Its record.
    pub(super) record: ServiceRecord,
    /// Its ring.
    pub(super) ring: Arc<[RingSlot]>,
    /// Its backends.
    pub(super) ids: Vec<BackendId>,
    /// Those of them that the plan has steps for, with their new state. A plan may fail before its end.
    pub(super) pending: Vec<(BackendId, ProgrammedBackend)>,
}

/// All planned services without parts that are planned for several services together.
#[derive(Debug, Default)]
pub(super) struct SettledServices {
    services: BTreeMap<ServiceKey, PlannedService>,
}

impl SettledServices {
    /// The service on `key` if it needs no steps.
    pub(super) fn get(
        &mut self,
        key: &ServiceKey,
        target: &Shared<TargetService>,
        programmed: &Programmed,
    ) -> Option<&PlannedService> {
        let known = self.services.get_mut(key)?;
        let ring = programmed.rings.get(&known.record.ring);
        let stands = known.target.is_same(target)
            && programmed.services.get(key) == Some(&known.record)
            && ring.is_some_and(|ring| Arc::ptr_eq(ring, &known.ring))
            && known
                .pending
                .iter()
                .all(|(id, backend)| programmed.backends.get(id) == Some(backend));
        if !stands {
            return None;
        }
        // Only a step of a later plan can change it now.
        known.pending = Vec::new();
        Some(known)
    }

    /// Records the plan for a service.
    pub(super) fn set(&mut self, key: ServiceKey, settled: Option<PlannedService>) {
        match settled {
            Some(settled) => drop(self.services.insert(key, settled)),
            None => drop(self.services.remove(&key)),
        }
    }

    /// Forgets services that are not in the target.
    pub(super) fn keep(&mut self, target: &Target) {
        self.services.retain(|key, _| target.services.contains_key(key));
    }

    /// Forgets services whose ring is no longer the planned one.
    pub(super) fn keep_rings(&mut self, programmed: &Programmed) {
        self.services.retain(|_, settled| {
            let ring = programmed.rings.get(&settled.record.ring);
            ring.is_some_and(|ring| Arc::ptr_eq(ring, &settled.ring))
        });
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.services.clear();
    }
}
