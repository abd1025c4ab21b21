//! Reading a hash map in chunks, by batch look-ups.

use std::io;

use aya::Pod;

use super::table::{BATCH, Table};
use crate::sys::{self, Cursor};

/// A walk through a hash map. Entries that come or go meanwhile may be seen or not.
pub(crate) struct Chunks<'a, K, V> {
    table: &'a Table<K, V>,
    keys: Vec<K>,
    values: Vec<V>,
    cursor: Option<Cursor>,
    is_over: bool,
}

impl<K: Pod + Default, V: Pod + Default> Chunks<'_, K, V> {
    /// The next keys with their values; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<(&[K], &[V])>> {
        if self.is_over {
            return Ok(None);
        }
        let fd = self.table.fd();
        let batch = loop {
            match sys::lookup_batch(fd, self.cursor, &mut self.keys, &mut self.values) {
                Ok(batch) => break batch,
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than fits: the same again with more room.
                    self.keys.resize(2 * self.keys.len(), K::default());
                    self.values.resize(self.keys.len(), V::default());
                }
                Err(e) => return Err(e),
            }
        };
        self.is_over = batch.next.is_none();
        self.cursor = batch.next;
        Ok(Some((&self.keys[..batch.count], &self.values[..batch.count])))
    }
}

impl<K: Pod + Default, V: Pod + Default> Table<K, V> {
    /// A walk through all entries of a hash map.
    pub(crate) fn chunks(&self) -> Chunks<'_, K, V> {
        Chunks {
            table: self,
            keys: vec![K::default(); BATCH],
            values: vec![V::default(); BATCH],
            cursor: None,
            is_over: false,
        }
    }

    /// Calls `visit` with chunks of all entries of a hash map, as [`Chunks`] gives them.
    pub(crate) fn for_each_chunk(
        &self,
        mut visit: impl FnMut(&[K], &[V]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut chunks = self.chunks();
        while let Some((keys, values)) = chunks.next_chunk()? {
            visit(keys, values)?;
        }
        Ok(())
    }
}
