//! The map of rings, whose entries are pages: maps themselves.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::atomic::AtomicU64,
    thread,
};

use aya::maps::MapData;
use lb_common::{
    limits::MAX_RINGS,
    map_names,
    ring_page::{RING_PAGES, RingPage, first_entry},
    ring_slot::RingSlot,
    service::RingId,
};

use crate::{loading, map_shape::MapShape, maps::table::Table, sys};

/// `BPF_MAP_TYPE_ARRAY`.
const PAGE_MAP_TYPE: u32 = 2;
/// Name of inner maps, as tools show it.
const PAGE_MAP_NAME: &str = "RING";
/// Name of the page without slots that replaces removed pages: each deletion costs a grace period, a batch of writes only
/// one.
const NO_RING_NAME: &str = "NO_RING";

/// Pages that are put in place at a time: each needs a descriptor until then.
const AT_ONCE: usize = 512;

/// Threads at most that put pages in place together. Before Linux 6.8 each entry of a batch waits for a grace period of
/// its own; entries that wait at the same time share one.
const WRITERS: usize = 64;
/// Pages of one thread at least.
const SHARE: usize = 8;

/// The map of rings, each in entries of its own.
pub(crate) struct Rings(pub(super) Table<u32, u32>);

impl Rings {
    /// Puts rings in place, each slot at once, and waits until no packet sees an old one any more.
    pub(crate) fn set(&self, rings: &[(RingId, &[RingSlot])]) -> io::Result<()> {
        let mut pages = rings
            .iter()
            .flat_map(|(ring, slots)| (first_entry(*ring)..).zip(RingPage::of_ring(slots)));
        loop {
            let some = pages.by_ref().take(AT_ONCE);
            let some = some.map(|(entry, page)| Ok((entry, build_page(PAGE_MAP_NAME, page)?)));
            let some: Vec<_> = some.collect::<io::Result<_>>()?;
            if some.is_empty() {
                return Ok(());
            }
            self.point(some.iter().map(|(entry, page)| (*entry, page)))?;
        }
    }

    /// Removes unreferenced rings, each with its number of pages.
    pub(crate) fn remove(&self, rings: impl Iterator<Item = (RingId, u32)>) -> io::Result<()> {
        let none = build_page(NO_RING_NAME, RingPage::default())?;
        let entries = rings.flat_map(|(ring, pages)| {
            let first = first_entry(ring);
            first..first + pages.clamp(1, RING_PAGES)
        });
        self.point(entries.map(|entry| (entry, &none)))
    }

    /// Writes entries, in as few calls as can be: each waits for a grace period.
    fn point<'a>(&self, entries: impl Iterator<Item = (u32, &'a OwnedFd)>) -> io::Result<()> {
        let entries = entries.map(|(entry, page)| (entry, page.as_raw_fd()));
        let (keys, values): (Vec<u32>, Vec<i32>) = entries.unzip();
        let share = keys.len().div_ceil(WRITERS).max(SHARE);
        let mut shares = keys.chunks(share).zip(values.chunks(share));
        let first = shares.next();
        let write = |(keys, values)| self.0.counted(self.write(keys, values));
        thread::scope(|scope| {
            let others = shares.map(|share| {
                let started = thread::Builder::new().spawn_scoped(scope, move || write(share));
                started.map_err(|_| share)
            });
            let others: Vec<_> = others.collect();
            let mut result = first.map_or(Ok(()), write);
            for other in others {
                let other = match other {
                    Ok(thread) => thread
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a writer of rings failed"))),
                    // No thread can be started: this one writes.
                    Err(share) => write(share),
                };
                result = result.and(other);
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

    /// Ids that hold a ring, or have held one.
    pub(crate) fn present(&self) -> io::Result<Vec<RingId>> {
        // One by one: whether a batch passes over empty entries depends on the kernel's version.
        let mut present = Vec::new();
        for ring in (0..).take(MAX_RINGS as usize).map(RingId) {
            if self.0.get(&first_entry(ring))?.is_some() {
                present.push(ring);
            }
        }
        Ok(present)
    }

    /// The slots of a ring; nothing where it was taken away. Needs CAP_SYS_ADMIN, as the kernel hands out maps by id only to
    /// it.
    pub(crate) fn read(&self, ring: RingId) -> io::Result<Option<Vec<RingSlot>>> {
        let first = self.read_page(first_entry(ring))?;
        let behind = 1..first.ring_pages().min(RING_PAGES);
        if first == RingPage::default() {
            return Ok(None);
        }
        let mut pages = vec![first];
        for number in behind {
            pages.push(self.read_page(first_entry(ring) + number)?);
        }
        let slots = RingPage::ring(&pages).ok_or_else(|| io::Error::other("pages are of several rings"))?;
        Ok(Some(slots.collect()))
    }

    fn read_page(&self, entry: u32) -> io::Result<RingPage> {
        let map_id = self.0.get(&entry)?;
        let map_id = map_id.ok_or_else(|| io::Error::other("a page is missing"))?;
        let map = MapData::from_id(map_id).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<u32>(), size_of::<RingPage>())
        {
            return Err(io::Error::other("an inner map is no page of a ring"));
        }
        let table: Table<u32, RingPage> = Table {
            map,
            name: map_names::RINGS,
            capacity: info.max_entries(),
            width: 1,
            errors: AtomicU64::new(0),
            layout: PhantomData,
        };
        Ok(table.get(&0)?.unwrap_or_default())
    }

    /// The map itself, for what is counted about it.
    pub(crate) const fn table(&self) -> &Table<u32, u32> {
        &self.0
    }
}

/// Creates the map of a page and fills it.
fn build_page(name: &str, page: RingPage) -> io::Result<OwnedFd> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let shape = MapShape {
        map_type: PAGE_MAP_TYPE,
        key_size: size(size_of::<u32>())?,
        value_size: size(size_of::<RingPage>())?,
        max_entries: 1,
        flags: 0,
    };
    let map = loading::create_map(name, &shape, None, None)?;
    sys::update(map.as_fd(), &0_u32, &[page])?;
    Ok(map)
}
