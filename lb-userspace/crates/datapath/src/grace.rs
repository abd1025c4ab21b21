//! Waiting for runs of programs to end.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use super::{loading::create_map, map_shape::MapShape, sys::update};

/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// Waits until every run of a BPF program that has begun is over.
///
/// User space has no such call. But an update of a map of maps returns only after a grace period, so that the old
/// inner map is out of use (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c; XDP programs run within RCU read-side
/// sections). So this updates a map of maps of its own, which no program uses.
pub(super) struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    pub(super) fn new() -> io::Result<Self> {
        let shape = |map_type| MapShape {
            map_type,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            flags: 0,
        };
        let inner = create_map("GRACE", &shape(MAP_TYPE_ARRAY), None, None)?;
        let outer = create_map("GRACE", &shape(MAP_TYPE_ARRAY_OF_MAPS), Some(inner.as_fd()), None)?;
        Ok(Self { outer, inner })
    }

    /// Blocks for a grace period, typically some milliseconds.
    pub(super) fn wait(&self) -> io::Result<()> {
        update(self.outer.as_fd(), &0u32, &[self.inner.as_raw_fd()])
    }
}
