//! The maps of one monitor: made when it begins, and gone with it, since they have no pins.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use aya::maps::{MapData, MapError, MapInfo};
use lb_common::{
    map_names,
    monitor::{Filter, Recorded},
};

use crate::{error::DatapathError, loading, object::Variant, sys};

/// Maps that the daemon and the monitored program share.
#[derive(Clone, Debug)]
pub(in super::super) struct MonitorMaps(Arc<Maps>);

#[derive(Debug)]
struct Maps {
    filter: OwnedFd,
    recorded: OwnedFd,
    records: OwnedFd,
    number: u32,
}

impl MonitorMaps {
    /// Makes the maps.
    pub(super) fn new() -> Result<Self, DatapathError> {
        let make = |name: &str| {
            let mut all = Variant::Monitored.parts()?.maps.iter();
            let map = all.find(|map| map.name == name);
            let map = map.ok_or_else(|| DatapathError::BadObject(format!("it defines no map {name}")))?;
            loading::create_map(name, &map.shape()?, None, None).map_err(|source| DatapathError::Io {
                what: format!("cannot create map {name}"),
                source,
            })
        };
        let records = make(map_names::MONITOR_RECORDS)?;
        let inspect = |source| DatapathError::Io {
            what: "cannot inspect a map".to_owned(),
            source,
        };
        let info = |fd: OwnedFd| -> Result<MapInfo, MapError> { MapData::from_fd(fd)?.info() };
        let info = info(records.try_clone().map_err(inspect)?);
        let number = info.map_err(|error| inspect(io::Error::other(error)))?;
        Ok(Self(Arc::new(Maps {
            filter: make(map_names::MONITOR_FILTER)?,
            recorded: make(map_names::MONITOR_RECORDED)?,
            records,
            number: number.id(),
        })))
    }

    /// Handles of them for the program, by name.
    pub(in super::super) fn of_program(&self) -> io::Result<HashMap<&'static str, OwnedFd>> {
        let Maps {
            filter,
            recorded,
            records,
            number: _,
        } = &*self.0;
        let maps = [
            (map_names::MONITOR_FILTER, filter),
            (map_names::MONITOR_RECORDED, recorded),
            (map_names::MONITOR_RECORDS, records),
        ];
        maps.into_iter()
            .map(|(name, fd)| Ok((name, fd.try_clone()?)))
            .collect()
    }

    /// A number that no other monitor has while this one's maps are there.
    pub(in super::super) fn number(&self) -> u32 {
        self.0.number
    }

    /// Whether nothing but the caller holds them.
    pub(in super::super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// A handle of the ring buffer.
    pub(super) fn records(&self) -> io::Result<OwnedFd> {
        self.0.records.try_clone()
    }

    /// Sets the filter.
    pub(super) fn set_filter(&self, filter: &Filter) -> io::Result<()> {
        sys::update(self.0.filter.as_fd(), &0_u32, &[*filter])
    }

    /// What was recorded so far.
    pub(super) fn recorded(&self) -> io::Result<Recorded> {
        let mut recorded = [Recorded::default()];
        sys::lookup(self.0.recorded.as_fd(), &0_u32, &mut recorded)?;
        let [recorded] = recorded;
        Ok(recorded)
    }
}
