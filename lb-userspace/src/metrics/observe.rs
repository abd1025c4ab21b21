//! Counters by the operator's names: one reading of the maps, passed through the ledgers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use lb_common::{counters::Traffic, reason::Reason};

use super::ledger::Ledger;
use crate::{
    control::ControlView,
    datapath::{BackendStats, DatapathError, InterfaceStats, MapUse, NextHops, Snapshot, WriterHandle},
    state::{
        names::{BackendName, ServiceName},
        service::ServiceKey,
    },
};

/// What can be read of a running data plane.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// All counters.
    pub snapshot: Snapshot,
    /// How backend addresses are reached.
    pub next_hops: Arc<NextHops>,
}

/// Reads a running data plane.
pub trait ReadCounters: Send + Sync {
    /// Everything as it is now. Blocks for as long as the system calls take.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn read(&self) -> Result<Reading, DatapathError>;
}

impl ReadCounters for WriterHandle {
    fn read(&self) -> Result<Reading, DatapathError> {
        Ok(Reading {
            snapshot: self.stats().snapshot()?,
            next_hops: Arc::clone(&self.next_hops().borrow()),
        })
    }
}

/// A backend by name.
pub(super) type BackendId = (ServiceName, BackendName);

/// All counters by name at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// One for each attached interface.
    pub interfaces: Vec<InterfaceStats>,
    /// Of all services.
    pub services: BTreeMap<ServiceName, Traffic>,
    /// Drops of services.
    pub drops: BTreeMap<(ServiceName, Reason), u64>,
    /// Of all backends, also removed ones that finish their flows.
    pub backends: BTreeMap<BackendId, BackendStats>,
    /// Flows under way by the backend's place in the data plane.
    flows: BTreeMap<(ServiceKey, SocketAddr), u64>,
    /// How full the maps are.
    pub maps: Vec<MapUse>,
    /// When flows were counted last.
    pub flows_counted_at: Option<Instant>,
    /// How backend addresses are reached.
    pub next_hops: Arc<NextHops>,
}

impl Observation {
    /// Flows under way to a backend, when last counted.
    pub fn active_flows(&self, key: &ServiceKey, address: SocketAddr) -> u64 {
        self.flows.get(&(*key, address)).copied().unwrap_or(0)
    }
}

/// Reads counters and remembers what ids that are gone had counted.
pub struct Observer {
    reader: Box<dyn ReadCounters>,
    ledgers: Mutex<Ledgers>,
}

#[derive(Default)]
struct Ledgers {
    services: Ledger<ServiceName, ServiceKey, Traffic>,
    drops: Ledger<(ServiceName, Reason), ServiceKey, u64>,
    backends: Ledger<BackendId, (ServiceKey, SocketAddr), Traffic>,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(reader: Box<dyn ReadCounters>) -> Self {
        Self {
            reader,
            ledgers: Mutex::default(),
        }
    }

    /// Reads all counters and names them as `view` does. Blocks for as long as the system calls take.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn observe(&self, view: &ControlView) -> Result<Observation, DatapathError> {
        // Held over the reading: of two readings the later one is noted later, so no total goes back.
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { snapshot, next_hops } = self.reader.read()?;
        let mut seen = Observation {
            interfaces: snapshot.interfaces,
            maps: snapshot.maps,
            flows_counted_at: snapshot.flows_counted_at,
            next_hops,
            flows: snapshot
                .backends
                .iter()
                .map(|(place, stats)| (*place, stats.active_flows))
                .collect(),
            ..Observation::default()
        };
        for (name, service) in &view.desired.services {
            let now = snapshot.services.get(&service.key).copied();
            let total = ledgers.services.note(name.clone(), service.key, now);
            seen.services.insert(name.clone(), total);
            for reason in Reason::ALL {
                if let Some(now) = snapshot.service_drops.get(&(service.key, *reason)) {
                    let id = (name.clone(), *reason);
                    let total = ledgers.drops.note(id.clone(), service.key, Some(*now));
                    seen.drops.insert(id, total);
                }
            }
        }
        for (id, key, address) in view.backends() {
            let now = snapshot.backends.get(&(key, address)).copied();
            let traffic = ledgers
                .backends
                .note(id.clone(), (key, address), now.map(|now| now.traffic));
            let stats = BackendStats {
                traffic,
                ..now.unwrap_or_default()
            };
            seen.backends.insert(id, stats);
        }
        let services: BTreeSet<&ServiceName> = seen.services.keys().collect();
        ledgers.services.keep(|name| services.contains(name));
        ledgers.drops.keep(|(name, _)| services.contains(name));
        ledgers.backends.keep(|id| seen.backends.contains_key(id));
        drop(ledgers);
        Ok(seen)
    }
}
