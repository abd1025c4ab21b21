//! Counters by the operator's names: one reading of the maps, passed through the ledgers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::{
    counters::{Signals, Traffic},
    reason::Reason,
};

use super::{
    faults::{Fault, Faults, FaultsByService},
    ledger::Ledger,
};
use crate::{
    control::view::ControlView,
    datapath::{
        BackendStats, DatapathError, GaveWay, InterfaceStats, MapUse, NextHops, RedirectErrors, Snapshot,
        WriterHandle,
    },
    state::{
        names::{BackendName, ServiceName},
        service::ServiceKey,
    },
};

/// A reading of a running data plane.
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
    /// Frames that could not be redirected; `None` while they are not counted.
    pub redirect_errors: Option<Vec<RedirectErrors>>,
    /// Of all services.
    pub services: BTreeMap<ServiceName, Traffic>,
    /// Half-open flows of services that gave way to new ones.
    pub gave_way: BTreeMap<ServiceName, GaveWay>,
    /// Drops of services.
    pub drops: BTreeMap<(ServiceName, Reason), u64>,
    /// Of all backends by name, also removed ones whose flows finish.
    pub backends: BTreeMap<BackendId, BackendStats>,
    /// The kernel's present counts, by the backend's place in the data plane.
    places: BTreeMap<(ServiceKey, SocketAddr), BackendStats>,
    /// How full the maps are.
    pub maps: Vec<MapUse>,
    /// When flows were counted last.
    pub flows_counted_at: Option<Instant>,
    /// How long that count took.
    pub flows_counted_in: Duration,
    /// How backend addresses are reached.
    pub next_hops: Arc<NextHops>,
    /// Faults of the set-up, by service.
    pub faults: Arc<FaultsByService>,
}

impl Observation {
    /// Why all flows of a service fail, as far as its set-up tells.
    pub fn fault_of(&self, service: &ServiceName) -> Option<&Fault> {
        let faults = self.faults.get(service)?;
        faults.iter().find(|fault| fault.is_total)
    }

    /// The active flows of all backends of a service, also of removed ones that finish theirs.
    pub fn flows_of(&self, key: &ServiceKey) -> u64 {
        let first = SocketAddr::from(([0, 0, 0, 0], 0));
        let places = self.places.range((*key, first)..);
        places
            .take_while(|((of, _), _)| of == key)
            .map(|(_, stats)| stats.active_flows)
            .sum()
    }

    /// The kernel's present counts for the backend at a place.
    pub fn at(&self, key: &ServiceKey, address: SocketAddr) -> BackendStats {
        self.places.get(&(*key, address)).copied().unwrap_or_default()
    }
}

/// Reads counters and keeps the counts of removed ids.
pub struct Observer {
    reader: Box<dyn ReadCounters>,
    faults: Faults,
    ledgers: Mutex<Ledgers>,
}

#[derive(Default)]
struct Ledgers {
    services: Ledger<ServiceName, ServiceKey, Traffic>,
    gave_way: Ledger<ServiceName, ServiceKey, u64>,
    drops: Ledger<(ServiceName, Reason), ServiceKey, u64>,
    backends: Ledger<BackendId, (ServiceKey, SocketAddr), Traffic>,
    signals: Ledger<BackendId, (ServiceKey, SocketAddr), Signals>,
}

impl Observer {
    /// A new observer.
    pub fn new(reader: Box<dyn ReadCounters>, faults: Faults) -> Self {
        Self {
            reader,
            faults,
            ledgers: Mutex::default(),
        }
    }

    /// The present faults.
    pub fn faults(&self) -> Arc<FaultsByService> {
        Arc::clone(&self.faults.borrow())
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
            redirect_errors: snapshot.redirect_errors,
            maps: snapshot.maps,
            flows_counted_at: snapshot.flows_counted_at,
            flows_counted_in: snapshot.flows_counted_in,
            next_hops,
            faults: self.faults(),
            places: snapshot.backends.clone(),
            ..Observation::default()
        };
        for (name, service) in &view.desired.services {
            let key = service.key;
            ledgers
                .services
                .note(name, key, snapshot.services.get(&key).copied());
            seen.services.insert(name.clone(), ledgers.services.total(name));
            let now = snapshot.gave_way.get(&key).copied().unwrap_or_default();
            ledgers.gave_way.note(name, key, Some(now.total));
            let total = ledgers.gave_way.total(name);
            seen.gave_way.insert(name.clone(), GaveWay { total, ..now });
            for reason in Reason::ALL {
                let id = (name.clone(), *reason);
                let now = snapshot.service_drops.get(&(key, *reason)).copied();
                if now.is_some() {
                    ledgers.drops.note(&id, key, now);
                }
                let total = ledgers.drops.total(&id);
                if total > 0 {
                    seen.drops.insert(id, total);
                }
            }
        }
        let mut present = BTreeSet::new();
        for (id, key, address) in view.backends() {
            let place = (key, address);
            let now = snapshot.backends.get(&place).copied();
            ledgers.backends.note(&id, place, now.map(|now| now.traffic));
            ledgers.signals.note(&id, place, now.map(|now| now.signals));
            let stats = seen.backends.entry(id.clone()).or_default();
            stats.traffic = ledgers.backends.total(&id);
            stats.signals = ledgers.signals.total(&id);
            stats.active_flows += now.map_or(0, |now| now.active_flows);
            present.insert((id, place));
        }
        let key_of = |name: &ServiceName| view.desired.services.get(name).map(|service| service.key);
        let known = |name: &ServiceName| key_of(name).is_some();
        let is_key = |name: &ServiceName, key: &ServiceKey| key_of(name) == Some(*key);
        ledgers.services.keep(known, is_key);
        ledgers.gave_way.keep(known, is_key);
        ledgers
            .drops
            .keep(|(name, _)| known(name), |(name, _), key| is_key(name, key));
        let is_place =
            |id: &BackendId, place: &(ServiceKey, SocketAddr)| present.contains(&(id.clone(), *place));
        let is_known = |id: &BackendId| seen.backends.contains_key(id);
        ledgers.backends.keep(is_known, is_place);
        ledgers.signals.keep(is_known, is_place);
        drop(ledgers);
        Ok(seen)
    }
}
