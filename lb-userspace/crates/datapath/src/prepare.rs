//! Preparation of programs before loading: types and maps in the kernel, and instructions that refer to them.

use std::{
    cmp,
    collections::HashMap,
    io,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use aya_obj::{EbpfSectionKind, Map, Object, btf::BtfFeatures, generated::bpf_insn};
use lb_common::map_names;

use super::{
    DatapathError, error,
    loading::{self, MapTypes, Records},
    object::MapShape,
    sys,
};

/// Threads at most that create maps or load programs.
const MAX_WORKERS: usize = 4;

/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;

/// The inputs of loading programs, once their maps exist.
pub(super) struct Ready {
    /// Type information.
    pub(super) btf: OwnedFd,
    /// The programs that were asked for, in that order.
    pub(super) programs: Vec<Prepared>,
    /// Held until the programs hold them.
    pub(super) maps: Vec<(String, OwnedFd)>,
}

/// A program that can be loaded.
pub(super) struct Prepared {
    /// Its name.
    pub(super) name: &'static str,
    /// Its instructions, relocated.
    pub(super) instructions: Vec<bpf_insn>,
    /// Its functions and their types.
    pub(super) functions: Records,
    /// Its source lines.
    pub(super) lines: Records,
}

impl Ready {
    /// A map by its name.
    pub(super) fn map(&self, name: &str) -> Result<BorrowedFd<'_>, DatapathError> {
        self.maps
            .iter()
            .find(|(map, _)| map == name)
            .map(|(_, fd)| fd.as_fd())
            .ok_or_else(|| DatapathError::BadObject(format!("it has no map {name}")))
    }
}

/// Types and maps that are in the kernel already.
#[derive(Default)]
pub(super) struct Made {
    btf: Option<OwnedFd>,
    maps: HashMap<String, OwnedFd>,
}

/// Entries from which on a map takes the kernel a while to make.
const MANY: u32 = 1 << 12;

/// Makes types and large maps, none of which is pinned.
pub(super) fn make_early(object: &mut Object) -> Result<Made, DatapathError> {
    let btf = types(object)?;
    let is_large = |name: &str, map: &Map| {
        map.max_entries() >= MANY && !map_names::LATE.contains(&name) && name != map_names::CHECKS
    };
    let maps = object.maps.iter();
    let mut large: Vec<(&String, &Map)> = maps.filter(|(name, map)| is_large(name, map)).collect();
    large.sort_by_key(|(_, map)| order(map));
    let fds = on_all_cpus(large.len(), |index| {
        let (name, map) = large[index];
        create(name, map, btf.as_fd())
    })?;
    let names = large.into_iter().map(|(name, _)| name.clone());
    // A failure is ignored here: loading tries again and reports it.
    let maps = names
        .zip(fds)
        .filter_map(|(name, fd)| Some((name, fd.ok()?)))
        .collect();
    Ok(Made { btf: Some(btf), maps })
}

/// Loads type information.
fn types(object: &mut Object) -> Result<OwnedFd, DatapathError> {
    // Linux 6.0 brought the last of them.
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object
        .fixup_and_sanitize_btf(&all)
        .map_err(|e| bad(&e))?
        .ok_or_else(|| DatapathError::BadObject("it has no type information".to_owned()))?
        .to_bytes();
    loading::load_types(&types).map_err(|source| DatapathError::Io {
        what: "cannot load type information".to_owned(),
        source,
    })
}

/// The order to make maps in: the large ones first, so that no CPU is left with one of them at the end; before them records of each
/// CPU, which would wait, later, for the kernel to have made the large maps of each CPU.
fn order(map: &Map) -> (bool, cmp::Reverse<u32>) {
    let is_record = map.map_type() == PERCPU_ARRAY && map.max_entries() == 1;
    (!is_record, cmp::Reverse(map.max_entries()))
}

/// Brings types and maps into the kernel, as far as they are not `made`, and relocates the programs of these names. `placeholders`
/// are maps that none of their packets uses: they get one entry, and no pin.
pub(super) fn prepare(
    object: &mut Object,
    made: Made,
    names: &[&'static str],
    pins: &Path,
    placeholders: &[&str],
) -> Result<Ready, DatapathError> {
    let btf = match made.btf {
        Some(btf) => btf,
        None => types(object)?,
    };
    let maps = maps(object, &made.maps, pins, btf.as_fd(), placeholders)?;

    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let descriptors = maps
        .iter()
        .map(|(name, fd, map)| (name.as_str(), fd.as_raw_fd(), map));
    object.relocate_maps(descriptors, &text).map_err(|e| bad(&e))?;
    object.relocate_calls(&text).map_err(|e| bad(&e))?;
    let mut programs = names
        .iter()
        .map(|name| prepared(object, name))
        .collect::<Result<Vec<_>, _>>()?;
    // The longest first, so that no CPU is left with one of them at the end.
    programs.sort_by_key(|program| cmp::Reverse(program.instructions.len()));
    Ok(Ready {
        btf,
        programs,
        maps: maps.into_iter().map(|(name, fd, _)| (name, fd)).collect(),
    })
}

fn prepared(object: &Object, name: &'static str) -> Result<Prepared, DatapathError> {
    let function = object
        .programs
        .get(name)
        .and_then(|program| object.functions.get(&program.function_key()))
        .ok_or_else(|| DatapathError::BadObject(format!("it has no XDP program \"{name}\"")))?;
    Ok(Prepared {
        name,
        instructions: function.instructions.clone(),
        functions: Records {
            bytes: function.func_info.func_info_bytes(),
            size: function.func_info_rec_size,
            count: function.func_info.len(),
        },
        lines: Records {
            bytes: function.line_info.line_info_bytes(),
            size: function.line_info_rec_size,
            count: function.line_info.len(),
        },
    })
}

/// Opens the maps that are pinned and creates all others, on all CPUs: the kernel clears the large ones.
fn maps(
    object: &mut Object,
    made: &HashMap<String, OwnedFd>,
    pins: &Path,
    btf: BorrowedFd<'_>,
    placeholders: &[&str],
) -> Result<Vec<(String, OwnedFd, Map)>, DatapathError> {
    let mut all: Vec<(String, Map)> = object.maps.drain().collect();
    all.sort_by_key(|(_, map)| order(map));
    let results = on_all_cpus(all.len(), |index| {
        let (name, map) = &all[index];
        if placeholders.contains(&name.as_str()) {
            let shape = MapShape {
                max_entries: 1,
                ..MapShape::of(map)
            };
            return loading::create_map(name, &shape, None, None);
        }
        open_or_create(name, map, made.get(name), pins, btf)
    })?;
    all.into_iter()
        .zip(results)
        .map(|((name, map), fd)| match fd {
            Ok(fd) => Ok((name, fd, map)),
            Err(source) => Err(DatapathError::Io {
                what: format!("cannot create map {name}"),
                source,
            }),
        })
        .collect()
}

fn open_or_create(
    name: &str,
    map: &Map,
    made: Option<&OwnedFd>,
    pins: &Path,
    btf: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let pin = map_names::PINNED.contains(&name).then(|| pins.join(name));
    if let Some(pin) = &pin
        && let Some(fd) = sys::pinned(pin)?
    {
        return Ok(fd);
    }
    let fd = match made {
        Some(made) => made.try_clone()?,
        None => create(name, map, btf)?,
    };
    if !map.data().is_empty() {
        sys::update(fd.as_fd(), &0u32, map.data())?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        loading::freeze(fd.as_fd())?;
    }
    let Some(pin) = &pin else { return Ok(fd) };
    match sys::pin(fd.as_fd(), pin) {
        Ok(()) => Ok(fd),
        // Another thread, which loads another program, has made it meanwhile.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => sys::pinned(pin)?.ok_or(e),
        Err(e) => Err(e),
    }
}

fn create(name: &str, map: &Map, btf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let types = if let Map::Btf(map) = map {
        Some(MapTypes {
            btf,
            key: map.def.btf_key_type_id,
            value: map.def.btf_value_type_id,
        })
    } else {
        None
    };
    if let Some(inner) = map.inner() {
        let inner = loading::create_map(name, &MapShape::of(&inner), None, None)?;
        loading::create_map(name, &MapShape::of(map), Some(inner.as_fd()), None)
    } else {
        loading::create_map(name, &MapShape::of(map), None, types)
    }
}

/// Does `work` for each index below `count`, on several threads, and gives the results in that order.
pub(super) fn on_all_cpus<T: Send>(
    count: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, DatapathError> {
    let workers = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_WORKERS);
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
    let mut results = thread::scope(|scope| {
        // Where no thread can be started, this one does all of it.
        let start = |_| thread::Builder::new().spawn_scoped(scope, run).ok();
        let threads: Vec<_> = (1..workers).filter_map(start).collect();
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

/// Errors of the library that reads the object.
pub(super) fn bad(e: &dyn std::error::Error) -> DatapathError {
    DatapathError::BadObject(error::chain(e))
}
