//! The map of rings, whose entries are maps themselves.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::atomic::AtomicU64,
};

use aya::maps::MapData;
use lb_common::{map_names, ring_slot::RingSlot, service::RingId};

use super::Table;
use crate::datapath::{loading, object::MapShape, sys};

/// `BPF_MAP_TYPE_ARRAY`, and the flag that lets arrays of different lengths stand in one map of maps
/// (`BPF_F_INNER_MAP`).
const RING_MAP_TYPE: u32 = 2;
const RING_MAP_FLAGS: u32 = 1 << 12;
/// Name of inner maps, as tools show it.
const RING_MAP_NAME: &str = "RING";

/// The map of rings, each an array of its own length.
pub(in crate::datapath) struct Rings(pub(super) Table<u32, u32>);

impl Rings {
    /// Puts rings in place, each at once and whole, and waits until no packet sees an old one any more.
    pub(in crate::datapath) fn set(&self, rings: &[(RingId, &[RingSlot])]) -> io::Result<()> {
        let inner: Vec<OwnedFd> = rings
            .iter()
            .map(|(_, slots)| build_ring(slots))
            .collect::<io::Result<_>>()?;
        let keys: Vec<u32> = rings.iter().map(|(ring, _)| u32::from(ring.0)).collect();
        let values: Vec<i32> = inner.iter().map(|map| map.as_raw_fd()).collect();
        // In one call, since each call waits for a grace period of its own.
        let result = match sys::update_batch(self.0.fd(), &keys, &values) {
            Err(e) if sys::lacks_batch(&e) => keys
                .iter()
                .zip(&values)
                .try_for_each(|(key, value)| sys::update(self.0.fd(), key, &[*value])),
            result => result,
        };
        self.0.counted(result)
    }

    /// Takes a ring away.
    pub(in crate::datapath) fn remove(&self, ring: RingId) -> io::Result<()> {
        self.0.delete(&u32::from(ring.0)).map(drop)
    }

    /// Ids that hold a ring, and the kernel's ids of their maps.
    pub(in crate::datapath) fn present(&self) -> io::Result<Vec<(RingId, u32)>> {
        // One by one: whether a batch passes over empty entries depends on the kernel's version.
        let mut present = Vec::new();
        for ring in 0..u16::try_from(self.0.capacity).unwrap_or(u16::MAX) {
            if let Some(map_id) = self.0.get(&u32::from(ring))? {
                present.push((RingId(ring), map_id));
            }
        }
        Ok(present)
    }

    /// The slots of the ring in the map with this id. Needs CAP_SYS_ADMIN, as the kernel hands out maps by id only to
    /// it.
    pub(in crate::datapath) fn read(map_id: u32) -> io::Result<Vec<RingSlot>> {
        let map = MapData::from_id(map_id).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<u32>(), size_of::<RingSlot>())
        {
            return Err(io::Error::other("an inner map is no ring"));
        }
        let table: Table<u32, RingSlot> = Table {
            map,
            name: map_names::RINGS,
            capacity: info.max_entries(),
            width: 1,
            errors: AtomicU64::new(0),
            layout: PhantomData,
        };
        let mut slots = Vec::with_capacity(table.capacity as usize);
        table.read_range(0, table.capacity, |_, slot| slots.extend_from_slice(slot))?;
        Ok(slots)
    }

    /// The map itself, for what is counted about it.
    pub(in crate::datapath) const fn table(&self) -> &Table<u32, u32> {
        &self.0
    }
}

/// Creates the array of a ring and fills it.
fn build_ring(slots: &[RingSlot]) -> io::Result<OwnedFd> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let shape = MapShape {
        map_type: RING_MAP_TYPE,
        key_size: size(size_of::<u32>())?,
        value_size: size(size_of::<RingSlot>())?,
        max_entries: size(slots.len())?,
        flags: RING_MAP_FLAGS,
    };
    let map = loading::create_map(RING_MAP_NAME, &shape, None, None)?;
    let keys: Vec<u32> = (0..size(slots.len())?).collect();
    match sys::update_batch(map.as_fd(), &keys, slots) {
        Err(e) if sys::lacks_batch(&e) => keys
            .iter()
            .zip(slots)
            .try_for_each(|(key, slot)| sys::update(map.as_fd(), key, &[*slot]))?,
        result => result?,
    }
    Ok(map)
}
