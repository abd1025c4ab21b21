//! Maps as typed tables.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData};

use crate::{
    error::{DatapathError, chain},
    sys,
};

/// Entries that one batch call reads or writes: large enough that calls do not count, small enough that buffers stay
/// below 100 KiB for plain maps.
pub(super) const BATCH: usize = 1024;
/// Bytes that the values of one batch of a per-CPU map may take.
const PER_CPU_BATCH_BYTES: usize = 256 * 1024;

/// A map of `K` to `V`. For per-CPU maps a value is one `V` for each possible CPU.
pub(crate) struct Table<K, V> {
    pub(super) map: MapData,
    pub(super) name: &'static str,
    pub(super) capacity: u32,
    /// Values for each key: 1, or the number of possible CPUs.
    pub(super) width: usize,
    /// Writes and deletions that the kernel refused.
    pub(super) errors: AtomicU64,
    pub(super) layout: PhantomData<fn(K) -> V>,
}

impl<K: Pod + Default, V: Pod> Table<K, V> {
    pub(super) fn open(pins: &Path, name: &'static str, width: usize) -> Result<Self, DatapathError> {
        let error = |reason: String| DatapathError::Map { map: name, reason };
        let map = MapData::from_pin(pins.join(name)).map_err(|e| error(chain(&e)))?;
        let info = map.info().map_err(|e| error(chain(&e)))?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(error(format!(
                "key and value have {} and {} bytes, {} and {} are expected",
                sizes.0,
                sizes.1,
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        Ok(Self {
            map,
            name,
            capacity: info.max_entries(),
            width,
            errors: AtomicU64::new(0),
            layout: PhantomData,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// The map's name, one of [`map_names`].
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Entries at most.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Writes and deletions that the kernel has refused since the map was opened.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(super) fn counted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Deletes an entry; `false` if it was not there.
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        self.counted(sys::delete(self.fd(), key))
    }
}

impl<K: Pod + Default, V: Pod + Default> Table<K, V> {
    /// Calls `visit` with each entry of a map that only this process writes. For maps that batch calls cannot read.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(K, V)) -> io::Result<()> {
        let mut key = sys::next_key::<K>(self.fd(), None)?;
        while let Some(found) = key {
            if let Some(value) = self.get(&found)? {
                visit(found, value);
            }
            key = sys::next_key(self.fd(), Some(&found))?;
        }
        Ok(())
    }

    /// The value of a key in a map that is not per CPU.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [V::default()];
        Ok(sys::lookup(self.fd(), key, &mut value)?.then_some(value[0]))
    }

    /// Sets a value in a map that is not per CPU.
    pub(crate) fn set(&self, key: &K, value: V) -> io::Result<()> {
        self.counted(sys::update(self.fd(), key, &[value]))
    }
}

/// Counters by number, for each CPU.
pub(crate) trait Counters<V> {
    /// The map's name, one of [`map_names`].
    fn name(&self) -> &'static str;

    /// Calls `visit` with each of `count` numbers from `first` on, and the counters of CPUs for it: of all CPUs at once, or in
    /// several calls.
    fn read_range(&self, first: u32, count: u32, visit: impl FnMut(u32, &[V])) -> io::Result<()>;
}

impl<V: Pod + Default> Counters<V> for Table<u32, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read_range(&self, first: u32, count: u32, visit: impl FnMut(u32, &[V])) -> io::Result<()> {
        Self::read_range(self, first, count, visit)
    }
}

/// Counters of services or backends: a row of `LENGTH` for each possible CPU.
pub(crate) struct Rows<V, const LENGTH: u32>(Table<u32, V>);

impl<V: Pod + Default, const LENGTH: u32> Rows<V, LENGTH> {
    pub(super) fn open(pins: &Path, name: &'static str) -> Result<Self, DatapathError> {
        Table::open(pins, name, 1).map(Self)
    }

    /// Where each row begins.
    fn rows(&self) -> impl Iterator<Item = u32> {
        (0..self.0.capacity / LENGTH).map(|cpu| cpu * LENGTH)
    }

    /// Sets the counters of a service or backend to zero, on all CPUs.
    pub(crate) fn clear(&self, id: u32) -> io::Result<()> {
        self.rows().try_for_each(|row| self.0.clear_range(row + id, 1))
    }
}

impl<V: Pod + Default, const LENGTH: u32> Counters<V> for Rows<V, LENGTH> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn read_range(&self, first: u32, count: u32, mut visit: impl FnMut(u32, &[V])) -> io::Result<()> {
        let count = count.min(LENGTH.saturating_sub(first));
        self.rows().try_for_each(|row| {
            self.0
                .read_range(row + first, count, |slot, counts| visit(slot - row, counts))
        })
    }
}

impl<V: Pod + Default> Table<u32, V> {
    /// Calls `visit` with each index from `first` on, `count` of them, and its value: one `V`, or one for each CPU.
    pub(crate) fn read_range(
        &self,
        first: u32,
        count: u32,
        mut visit: impl FnMut(u32, &[V]),
    ) -> io::Result<()> {
        let chunk = if self.width == 1 {
            BATCH
        } else {
            (PER_CPU_BATCH_BYTES / (self.width * size_of::<V>())).max(1)
        };
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX).min(count);
        let mut keys = vec![0u32; chunk as usize];
        let mut values = vec![V::default(); chunk as usize * self.width];
        let mut index = first;
        let end = first.saturating_add(count).min(self.capacity);
        while index < end {
            let want = chunk.min(end - index) as usize;
            let from = index.checked_sub(1).map(sys::Cursor::after);
            let got = match sys::lookup_batch(
                self.fd(),
                from,
                &mut keys[..want],
                &mut values[..want * self.width],
            ) {
                Ok(batch) => batch.count,
                Err(e) if sys::lacks_batch(&e) => {
                    keys[0] = index;
                    usize::from(sys::lookup(self.fd(), &index, &mut values[..self.width])?)
                }
                Err(e) => return Err(e),
            };
            if got == 0 {
                return Err(io::Error::other(format!("entry {index} cannot be read")));
            }
            for (key, value) in keys[..got].iter().zip(values.chunks_exact(self.width)) {
                visit(*key, value);
            }
            index += u32::try_from(got).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Sets `count` entries from `first` on to zero, on all CPUs.
    pub(super) fn clear_range(&self, first: u32, count: u32) -> io::Result<()> {
        let keys: Vec<u32> = (first..first + count).collect();
        let zeroes = vec![V::default(); self.width * keys.len()];
        match sys::update_batch(self.fd(), &keys, &zeroes) {
            Err(e) if sys::lacks_batch(&e) => keys
                .iter()
                .try_for_each(|index| self.counted(sys::update(self.fd(), index, &zeroes[..self.width]))),
            result => self.counted(result),
        }
    }
}
