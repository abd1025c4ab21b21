//! The map of rings, whose entries are maps themselves.

use std::{
    io,
    marker::PhantomData,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::atomic::AtomicU64,
    thread,
};

use aya::maps::MapData;
use lb_common::{backend::BackendId, limits::RING_SIZE_MIN, map_names, ring_slot::RingSlot, service::RingId};

use super::Table;
use crate::datapath::{loading, object::MapShape, sys};

/// `BPF_MAP_TYPE_ARRAY`, and the flag that lets arrays of different lengths stand in one map of maps
/// (`BPF_F_INNER_MAP`).
const RING_MAP_TYPE: u32 = 2;
const RING_MAP_FLAGS: u32 = 1 << 12;
/// Name of inner maps, as tools show it.
const RING_MAP_NAME: &str = "RING";

/// Stands in the place of rings that were taken away: deleting an entry costs a grace period each, writing any number of
/// them one together. No ring is as small.
const NO_RING: [RingSlot; 1] = [RingSlot::stable(BackendId::NONE)];
/// Name of the map that holds it.
const NO_RING_NAME: &str = "NO_RING";
const _: () = assert!(
    NO_RING.len() < RING_SIZE_MIN as usize,
    "a ring is told from none by its size"
);

/// Rings that are put in place at a time: each needs a descriptor until then.
const AT_ONCE: usize = 512;

/// Threads at most that put rings in place together. Before Linux 6.8 each entry of a batch waits for a grace period of
/// its own; those that wait at the same time share one.
const WRITERS: usize = 64;
/// Rings of one thread at least.
const SHARE: usize = 8;

/// The map of rings, each an array of its own length.
pub(in crate::datapath) struct Rings(pub(super) Table<u32, u32>);

impl Rings {
    /// Puts rings in place, each at once and whole, and waits until no packet sees an old one any more.
    pub(in crate::datapath) fn set(&self, rings: &[(RingId, &[RingSlot])]) -> io::Result<()> {
        for some in rings.chunks(AT_ONCE) {
            let inner = build_rings(some)?;
            let entries = some.iter().zip(&inner);
            self.point(entries.map(|((ring, _), map)| (*ring, map)))?;
        }
        Ok(())
    }

    /// Takes rings away that nothing refers to any more.
    pub(in crate::datapath) fn remove(&self, rings: impl Iterator<Item = RingId>) -> io::Result<()> {
        let none = build_ring(NO_RING_NAME, &NO_RING)?;
        self.point(rings.map(|ring| (ring, &none)))
    }

    /// Writes entries, in as few calls as can be: each waits for a grace period.
    fn point<'a>(&self, entries: impl Iterator<Item = (RingId, &'a OwnedFd)>) -> io::Result<()> {
        let entries = entries.map(|(ring, map)| (u32::from(ring.0), map.as_raw_fd()));
        let (keys, values): (Vec<u32>, Vec<i32>) = entries.unzip();
        let share = keys.len().div_ceil(WRITERS).max(SHARE);
        let mut shares = keys.chunks(share).zip(values.chunks(share));
        let first = shares.next();
        let write = |(keys, values)| self.0.counted(self.write(keys, values));
        thread::scope(|scope| {
            let others: Vec<_> = shares.map(|share| scope.spawn(move || write(share))).collect();
            let mut result = first.map_or(Ok(()), write);
            for other in others {
                let other = other.join();
                result =
                    result.and(other.unwrap_or_else(|_| Err(io::Error::other("a writer of rings failed"))));
            }
            result
        })
    }

    fn write(&self, keys: &[u32], values: &[i32]) -> io::Result<()> {
        match sys::update_batch(self.0.fd(), keys, values) {
            Err(e) if sys::lacks_batch(&e) => keys
                .iter()
                .zip(values)
                .try_for_each(|(key, value)| sys::update(self.0.fd(), key, &[*value])),
            result => result,
        }
    }

    /// Ids that hold a ring, or have held one, and the kernel's ids of their maps.
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

    /// The slots of the ring in the map with this id; nothing where it was taken away. Needs CAP_SYS_ADMIN, as the kernel hands out maps by id only to
    /// it.
    pub(in crate::datapath) fn read(map_id: u32) -> io::Result<Option<Vec<RingSlot>>> {
        let map = MapData::from_id(map_id).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<u32>(), size_of::<RingSlot>())
        {
            return Err(io::Error::other("an inner map is no ring"));
        }
        if info.max_entries() < RING_SIZE_MIN {
            return Ok(None);
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
        Ok(Some(slots))
    }

    /// The map itself, for what is counted about it.
    pub(in crate::datapath) const fn table(&self) -> &Table<u32, u32> {
        &self.0
    }
}

/// Creates the arrays of rings and fills them, on as many CPUs as there are: the kernel takes slots one by one.
fn build_rings(rings: &[(RingId, &[RingSlot])]) -> io::Result<Vec<OwnedFd>> {
    let builders = thread::available_parallelism().map_or(1, NonZero::get);
    let share = rings.len().div_ceil(builders).max(SHARE);
    let build = |rings: &[(RingId, &[RingSlot])]| {
        let maps = rings.iter().map(|(_, slots)| build_ring(RING_MAP_NAME, slots));
        maps.collect::<io::Result<Vec<OwnedFd>>>()
    };
    thread::scope(|scope| {
        let mut shares = rings.chunks(share);
        let first = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|share| scope.spawn(move || build(share))).collect();
        let mut maps = build(first)?;
        for other in others {
            let built = other.join();
            maps.extend(built.unwrap_or_else(|_| Err(io::Error::other("a builder of rings failed")))?);
        }
        Ok(maps)
    })
}

/// Creates the array of a ring and fills it.
fn build_ring(name: &str, slots: &[RingSlot]) -> io::Result<OwnedFd> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let shape = MapShape {
        map_type: RING_MAP_TYPE,
        key_size: size(size_of::<u32>())?,
        value_size: size(size_of::<RingSlot>())?,
        max_entries: size(slots.len())?,
        flags: RING_MAP_FLAGS,
    };
    let map = loading::create_map(name, &shape, None, None)?;
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
