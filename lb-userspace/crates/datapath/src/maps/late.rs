//! Tables that are not there from the beginning.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aya::Pod;
use lb_common::{
    limits::{MAX_OPENING, MAX_SEEN, MAX_TRACKED},
    track::{self, FlowRecord},
};

use crate::{error::DatapathError, maps::table::Table};

/// A table that need not be there before packets use it: see [`lb_common::map_names::LATE`]. Until then it has no entries.
pub(crate) struct LateTable<K, V> {
    pins: PathBuf,
    name: &'static str,
    capacity: u32,
    table: OnceLock<Table<K, V>>,
}

impl<K: Pod + Default, V: Pod> LateTable<K, V> {
    fn open(pins: &Path, name: &'static str, capacity: u32) -> Result<Self, DatapathError> {
        let late = Self {
            pins: pins.to_owned(),
            name,
            capacity,
            table: OnceLock::new(),
        };
        late.open_table()?;
        Ok(late)
    }

    /// The map's name, one of [`lb_common::map_names`].
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Entries at most.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// As [`Table::errors`].
    pub(crate) fn errors(&self) -> u64 {
        self.table.get().map_or(0, Table::errors)
    }

    /// The table, if it is there.
    pub(crate) fn get(&self) -> io::Result<Option<&Table<K, V>>> {
        self.open_table().map_err(io::Error::other)
    }

    fn open_table(&self) -> Result<Option<&Table<K, V>>, DatapathError> {
        if self.table.get().is_none() {
            if !self.pins.join(self.name).exists() {
                return Ok(None);
            }
            let table = Table::open(&self.pins, self.name, 1)?;
            return Ok(Some(self.table.get_or_init(|| table)));
        }
        Ok(self.table.get())
    }
}

/// One family's tables of flow records.
pub(crate) struct RecordTables<K> {
    tracked: LateTable<K, FlowRecord>,
    opening: LateTable<K, FlowRecord>,
    seen: LateTable<K, FlowRecord>,
}

impl<K: Pod + Default> RecordTables<K> {
    pub(super) fn open(
        pins: &Path,
        [tracked, opening, seen]: [&'static str; 3],
    ) -> Result<Self, DatapathError> {
        Ok(Self {
            tracked: LateTable::open(pins, tracked, MAX_TRACKED)?,
            opening: LateTable::open(pins, opening, MAX_OPENING)?,
            seen: LateTable::open(pins, seen, MAX_SEEN)?,
        })
    }

    /// The map of a table.
    pub(crate) const fn of(&self, table: track::Table) -> &LateTable<K, FlowRecord> {
        match table {
            track::Table::Tracked => &self.tracked,
            track::Table::Opening => &self.opening,
            track::Table::Seen => &self.seen,
        }
    }
}
