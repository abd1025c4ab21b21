//! Types and maps, made in the kernel on all CPUs.

use std::{
    cmp, io,
    num::NonZero,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{
    loading::{self, MapTypes},
    object::{Map, Parts},
    spread::Spread,
};
use crate::error::DatapathError;

/// Threads at most that create maps or load programs.
const MAX_WORKERS: usize = 4;

/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;

/// Loads type information.
pub(super) fn types(parts: &Parts) -> Result<OwnedFd, DatapathError> {
    loading::load_types(parts.types).map_err(|source| DatapathError::Io {
        what: "cannot load type information".to_owned(),
        source,
    })
}

/// The order to make maps in: the large ones first, so that no CPU is left with one of them at the end; before them records of each
/// CPU, which would wait, later, for the kernel to have made the large maps of each CPU.
pub(super) fn order(map: &Map) -> (bool, cmp::Reverse<u32>) {
    let shape = map.usual_shape();
    let is_record = shape.map_type == PERCPU_ARRAY && shape.max_entries == 1;
    (!is_record, cmp::Reverse(shape.max_entries))
}

/// Creates a map on its own, without content and pin.
pub(super) fn create(map: &Map, btf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let shape = map.shape().map_err(io::Error::other)?;
    if let Some(inner) = &map.inner {
        let inner = loading::create_map(map.name, inner, None, None)?;
        return loading::create_map(map.name, &shape, Some(inner.as_fd()), None);
    }
    let types = map.types.map(|[key, value]| MapTypes { btf, key, value });
    loading::create_map(map.name, &shape, None, types)
}

/// Does `work` for each index below `count`, on several threads, and gives the results in that order.
pub(super) fn on_all_cpus<T: Send>(
    count: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, DatapathError> {
    let workers = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_WORKERS)
        .min(count);
    let next = AtomicUsize::new(0);
    let run = || -> Vec<(usize, T)> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let spread = &Spread::from_here();
    let mut results = thread::scope(|scope| {
        let work = || {
            spread.join();
            run()
        };
        // Where no thread can be started, this one does all of it.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..workers).filter_map(start).collect();
        // One that begins on this CPU could not leave it before the kernel has done some work of this thread.
        thread::yield_now();
        let mut results = run();
        for thread in threads {
            let died = |_| DatapathError::BadObject("a thread that loads it died".to_owned());
            results.extend(thread.join().map_err(died)?);
        }
        Ok(results)
    })?;
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
