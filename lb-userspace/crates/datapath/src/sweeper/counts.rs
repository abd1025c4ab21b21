//! Flows as a sweep found them.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use aya::Pod;
use lb_common::{
    backend::{BackendId, Generation},
    service::ServiceId,
};

use crate::maps::Table;

/// Flows as a sweep found them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowCounts {
    /// Flows that are not closed, by the backend that owns them.
    pub(crate) active: BTreeMap<(BackendId, Generation), u64>,
    /// Entries of the tables, by the map's name.
    pub(crate) entries: BTreeMap<&'static str, u64>,
    /// Half-open flows that gave way, by service.
    pub(crate) gave_way: BTreeMap<ServiceId, GaveWayCount>,
    /// When the count began; `None` before the first one.
    pub(crate) at: Option<Instant>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Half-open flows of a service that gave way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GaveWayCount {
    /// When this sweep began.
    pub(super) total: u64,
    /// Since the sweep before.
    pub(crate) lately: u64,
}

impl FlowCounts {
    /// The count of tables that have just been made.
    pub(crate) fn of_new_tables() -> Self {
        Self {
            at: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// How much of a flow table is in use: 256ths.
    pub(super) fn fill<K: Pod + Default, V: Pod>(&self, table: &Table<K, V>) -> u32 {
        let entries = self.entries.get(table.name()).copied().unwrap_or_default();
        u32::try_from(entries * 256 / u64::from(table.capacity().max(1))).unwrap_or(256)
    }
}

/// Removes an entry unless a packet has changed it since it was read. What is left of the window in between is a
/// microsecond in the life of a flow that has been idle for its whole timeout.
pub(super) fn remove_unchanged<K, V>(table: &Table<K, V>, key: &K, seen: &V) -> io::Result<bool>
where
    K: Pod + Default,
    V: Pod + Default + PartialEq,
{
    Ok(table.get(key)?.as_ref() == Some(seen) && table.delete(key)?)
}
