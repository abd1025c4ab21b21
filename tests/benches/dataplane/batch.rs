//! Many entries of a map in one call of bpf(2): one by one, filling the tables takes longer than the measuring.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use anyhow::Result;

const MAP_LOOKUP_BATCH: c_long = 24;
const MAP_UPDATE_BATCH: c_long = 26;
/// Entries of one call.
const BATCH: usize = 1 << 14;

/// The `batch` part of `union bpf_attr` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn bpf(command: c_long, attr: &mut BatchAttr) -> io::Result<()> {
    // SAFETY: callers pass buffers for `count` entries of the map's types.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attr),
            size_of::<BatchAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes all entries. Keys and values are of the map's own types.
pub(crate) fn update<K, V>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Result<()> {
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        let mut attr = BatchAttr {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: u32::try_from(keys.len())?,
            map_fd: u32::try_from(map.as_raw_fd())?,
            ..BatchAttr::default()
        };
        bpf(MAP_UPDATE_BATCH, &mut attr)?;
    }
    Ok(())
}

/// All entries of a hash map, of the map's own types.
pub(crate) fn entries<K: Copy + Default, V: Copy + Default>(map: BorrowedFd<'_>) -> Result<(Vec<K>, Vec<V>)> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let (mut some_keys, mut some_values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
    let mut cursor = None::<u32>;
    loop {
        let mut next = 0u32;
        let mut attr = BatchAttr {
            in_batch: cursor.as_ref().map_or(0, |cursor| ptr::from_ref(cursor) as u64),
            out_batch: ptr::from_mut(&mut next) as u64,
            keys: some_keys.as_mut_ptr() as u64,
            values: some_values.as_mut_ptr() as u64,
            count: u32::try_from(BATCH)?,
            map_fd: u32::try_from(map.as_raw_fd())?,
            ..BatchAttr::default()
        };
        let result = bpf(MAP_LOOKUP_BATCH, &mut attr);
        let count = attr.count as usize;
        keys.extend(some_keys.iter().take(count));
        values.extend(some_values.iter().take(count));
        match result {
            Ok(()) => cursor = Some(next),
            // The kernel signals the end this way.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok((keys, values)),
            Err(e) => return Err(e.into()),
        }
    }
}
