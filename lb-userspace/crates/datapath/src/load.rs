//! Loading the object: maps from their pins, the program once for all interfaces.

use std::{
    cmp,
    collections::HashMap,
    io,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use aya_obj::{EbpfSectionKind, Function, Map, Object, btf::BtfFeatures};
use lb_common::{interfaces::InterfaceSlots, map_names};

use super::{
    DatapathError, error,
    kept::Kept,
    loading::{self, MapTypes, NewProgram, Records, Refusal},
    object::MapShape,
    pin::Pins,
    sys,
};

/// The program of health checks through the path, which has no read-only globals.
const CHECKS_PROGRAM: &str = "lb_check";

/// The program and its read-only global in the object.
pub(super) const PROGRAM: &str = "lb";
const SLOTS_GLOBAL: &str = "INTERFACE_SLOTS";

/// Lines of the verifier's log that an error shows: the last ones say what it objects to.
const VERIFIER_LINES: usize = 8;

/// Threads at most that create maps.
const MAP_WORKERS: usize = 4;

/// A program in the kernel, for all interfaces of one daemon.
pub(super) type Program = Rc<OwnedFd>;

/// Loads the program for the interfaces of one daemon, at most once with and once without packets of several buffers.
pub(super) struct Loader {
    object: Object,
    pins: PathBuf,
    kept: Kept,
    ready: Option<Ready>,
    /// With packets of several buffers, and without; why not, where the kernel refused it.
    loaded: [Option<Result<Program, String>>; 2],
}

/// What is needed to load the program, once its maps are there.
struct Ready {
    btf: OwnedFd,
    function: Function,
    functions: Records,
    lines: Records,
    /// Held until the program holds them.
    maps: Vec<(String, OwnedFd)>,
}

impl Loader {
    /// A loader whose maps and programs stand among `pins`; maps that are missing there are created by the first load.
    pub(super) fn new(object: Object, pins: &Pins) -> Self {
        Self {
            object,
            pins: pins.current(),
            kept: Kept::new(PROGRAM, pins.current(), pins.programs()),
            ready: None,
            loaded: [None, None],
        }
    }

    /// Tells which interface, by its index, counts in which slot. To be called before the first load.
    pub(super) fn serve(&mut self, interfaces: &[(u32, u32)]) -> Result<(), DatapathError> {
        let slots = InterfaceSlots::of(interfaces)
            .ok_or_else(|| DatapathError::BadObject("interface slots are out of range".to_owned()))?;
        let slots = slots.to_bytes();
        self.kept.made_with(&slots);
        let globals = HashMap::from([(SLOTS_GLOBAL, (slots.as_slice(), true))]);
        self.object.patch_map_data(globals).map_err(|e| bad(&e))
    }

    /// The program, with or without packets of several buffers: the one that an earlier daemon has left, where this would be
    /// the same.
    pub(super) fn load(&mut self, frags: bool) -> Result<Program, DatapathError> {
        let variant = usize::from(!frags);
        if let Some(loaded) = &self.loaded[variant] {
            let refused = |reason: &String| DatapathError::Load {
                reason: reason.clone(),
            };
            return loaded.clone().map_err(|reason| refused(&reason));
        }
        if let Some(program) = self.kept.find(frags).map(Rc::new) {
            self.loaded[variant] = Some(Ok(program.clone()));
            return Ok(program);
        }
        if self.ready.is_none() {
            self.ready = Some(prepare(&mut self.object, PROGRAM, &self.pins)?);
        }
        let Some(ready) = &self.ready else {
            return Err(DatapathError::BadObject("it is not ready".to_owned()));
        };
        let result = loading::load_program(&NewProgram {
            name: PROGRAM,
            license: &self.object.license,
            instructions: &ready.function.instructions,
            btf: ready.btf.as_fd(),
            functions: &ready.functions,
            lines: &ready.lines,
            frags,
        })
        .map(Rc::new)
        .map_err(|refusal| words(&refusal));
        if let Ok(program) = &result
            && let Err(error) = self.kept.keep(program.as_fd(), frags)
        {
            tracing::warn!(%error, "the program cannot be pinned: the next start takes longer");
        }
        self.loaded[variant] = Some(result.clone());
        result.map_err(|reason| DatapathError::Load { reason })
    }
}

/// Loads the program of health checks, which shares the maps pinned below `pins`, or finds the one that an earlier daemon has
/// left among `programs`; returns it and its map of checks.
pub(super) fn checks(
    mut object: Object,
    pins: &Path,
    programs: &Path,
) -> Result<[OwnedFd; 2], DatapathError> {
    let kept = Kept::new(CHECKS_PROGRAM, pins.to_owned(), programs.to_owned());
    let found = kept.find(false).zip(kept.own_map(false, map_names::CHECKS));
    if let Some((program, checks)) = found {
        return Ok([program, checks]);
    }
    let ready = prepare(&mut object, CHECKS_PROGRAM, pins)?;
    let program = loading::load_program(&NewProgram {
        name: CHECKS_PROGRAM,
        license: &object.license,
        instructions: &ready.function.instructions,
        btf: ready.btf.as_fd(),
        functions: &ready.functions,
        lines: &ready.lines,
        frags: false,
    })
    .map_err(|refusal| DatapathError::Load {
        reason: words(&refusal),
    })?;
    let mut maps = ready.maps.into_iter();
    let (_, checks) = maps
        .find(|(name, _)| name == map_names::CHECKS)
        .ok_or_else(|| DatapathError::BadObject(format!("it has no map {}", map_names::CHECKS)))?;
    if let Err(error) = kept.keep(program.as_fd(), false) {
        tracing::warn!(%error, "the program of health checks cannot be pinned: the next start takes longer");
    }
    Ok([program, checks])
}

/// Puts the program in the place of the one that a pinned link holds.
pub(super) fn take_over(program: &Program, pin: &Path) -> Result<(), String> {
    let (link, _) = sys::pinned_xdp_link(pin).map_err(|e| e.to_string())?;
    loading::update_link(&link, program.as_fd()).map_err(|e| e.to_string())
}

/// Brings types and maps into the kernel and relocates the program.
fn prepare(object: &mut Object, program: &str, pins: &Path) -> Result<Ready, DatapathError> {
    // Linux 6.0 brought the last of them.
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object
        .fixup_and_sanitize_btf(&all)
        .map_err(|e| bad(&e))?
        .ok_or_else(|| DatapathError::BadObject("it has no type information".to_owned()))?
        .to_bytes();
    let btf = loading::load_types(&types).map_err(|source| DatapathError::Io {
        what: "cannot load type information".to_owned(),
        source,
    })?;
    let maps = maps(object, pins, btf.as_fd())?;

    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let descriptors = maps
        .iter()
        .map(|(name, fd, map)| (name.as_str(), fd.as_raw_fd(), map));
    object.relocate_maps(descriptors, &text).map_err(|e| bad(&e))?;
    object.relocate_calls(&text).map_err(|e| bad(&e))?;
    let function = object
        .programs
        .get(program)
        .and_then(|program| object.functions.get(&program.function_key()))
        .ok_or_else(|| DatapathError::BadObject(format!("it has no XDP program \"{program}\"")))?
        .clone();
    Ok(Ready {
        btf,
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
        function,
        maps: maps.into_iter().map(|(name, fd, _)| (name, fd)).collect(),
    })
}

/// Opens the maps that are pinned and creates all others, on all CPUs: the kernel clears the large ones.
fn maps(
    object: &mut Object,
    pins: &Path,
    btf: BorrowedFd<'_>,
) -> Result<Vec<(String, OwnedFd, Map)>, DatapathError> {
    let mut all: Vec<(String, Map)> = object.maps.drain().collect();
    // The large ones first, so that no CPU is left with one of them at the end.
    all.sort_by_key(|(_, map)| cmp::Reverse(map.max_entries()));
    let workers = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAP_WORKERS);
    let next = AtomicUsize::new(0);
    let work = || -> Vec<(usize, io::Result<OwnedFd>)> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, map)) = all.get(index) else {
                return done;
            };
            done.push((index, open_or_create(name, map, pins, btf)));
        }
    };
    let mut results = thread::scope(|scope| {
        // Where no thread can be started, this one does all of it.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..workers).filter_map(start).collect();
        let mut results = work();
        for thread in threads {
            let died = |_| DatapathError::BadObject("a thread that creates its maps died".to_owned());
            results.extend(thread.join().map_err(died)?);
        }
        Ok(results)
    })?;
    results.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter()
        .zip(results)
        .map(|((name, map), (_, fd))| match fd {
            Ok(fd) => Ok((name, fd, map)),
            Err(source) => Err(DatapathError::Io {
                what: format!("cannot create map {name}"),
                source,
            }),
        })
        .collect()
}

fn open_or_create(name: &str, map: &Map, pins: &Path, btf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let pin = map_names::PINNED.contains(&name).then(|| pins.join(name));
    if let Some(pin) = &pin
        && let Some(fd) = sys::pinned(pin)?
    {
        return Ok(fd);
    }
    let types = if let Map::Btf(map) = map {
        Some(MapTypes {
            btf,
            key: map.def.btf_key_type_id,
            value: map.def.btf_value_type_id,
        })
    } else {
        None
    };
    let fd = if let Some(inner) = map.inner() {
        let inner = loading::create_map(name, &MapShape::of(&inner), None, None)?;
        loading::create_map(name, &MapShape::of(map), Some(inner.as_fd()), None)?
    } else {
        loading::create_map(name, &MapShape::of(map), None, types)?
    };
    if !map.data().is_empty() {
        sys::update(fd.as_fd(), &0u32, map.data())?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        loading::freeze(fd.as_fd())?;
    }
    if let Some(pin) = &pin {
        sys::pin(fd.as_fd(), pin)?;
    }
    Ok(fd)
}

fn bad(e: &dyn std::error::Error) -> DatapathError {
    DatapathError::BadObject(error::chain(e))
}

/// What the kernel said, without the thousands of lines that a verifier's log may have.
fn words(refusal: &Refusal) -> String {
    let lines: Vec<&str> = refusal
        .log
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n  ");
    if last.is_empty() {
        refusal.error.to_string()
    } else {
        format!("{}; the verifier's last words:\n  {last}", refusal.error)
    }
}
