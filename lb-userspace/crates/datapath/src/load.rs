//! Loading the programs: the entry and its stages once for all interfaces, in parallel; and the program of health checks.

use std::{
    collections::HashMap,
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya_obj::Object;
use lb_common::{
    interfaces::InterfaceSlots,
    map_names,
    stage::{ENTRY, STAGE_SLOTS, StageSet},
};

use super::{
    DatapathError,
    fill::{LoadError, load_into, refused, slots},
    kept::Kept,
    loading::{self, NewProgram},
    object::MapShape,
    pin::Pins,
    prepare::{Made, Prepared, Ready, bad, prepare},
    stages::{Rest, Stages},
    sys,
};

/// The program of health checks through the path, which has no read-only globals.
const CHECKS_PROGRAM: &str = "lb_check";

/// The read-only global of the programs.
const SLOTS_GLOBAL: &str = "INTERFACE_SLOTS";

/// Type of the map of programs (`BPF_MAP_TYPE_PROG_ARRAY`).
const PROG_ARRAY: u32 = 3;

/// The entry program and the map of its stages, for all interfaces of one daemon.
///
/// The kernel empties a map of programs when only programs refer to it: this and its pin prevent that.
pub(super) struct Loaded {
    entry: OwnedFd,
    _stages: OwnedFd,
}

impl AsFd for Loaded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }
}

/// [`Loaded`], in the hands of several.
pub(super) type Program = Arc<Loaded>;

/// Loads the programs for the interfaces of one daemon, at most once with and once without packets of several buffers.
pub(super) struct Loader {
    object: Object,
    /// Its types and maps that are in the kernel already.
    made: Made,
    pins: PathBuf,
    kept: Kept,
    /// The stages to load.
    wanted: StageSet,
    /// Gets each map of stages.
    stages: Stages,
    ready: Option<Arc<Ready>>,
    /// With packets of several buffers, and without; why not, where the kernel refused it.
    loaded: [Option<Result<Program, String>>; 2],
}

impl Loader {
    /// A loader of the `wanted` stages, with maps and programs from `pins`. The first load creates missing maps.
    pub(super) fn new((object, made): (Object, Made), pins: &Pins, wanted: StageSet, stages: Stages) -> Self {
        Self {
            object,
            made,
            pins: pins.current(),
            kept: Kept::new(ENTRY, pins.current(), pins.programs()),
            wanted,
            stages,
            ready: None,
            loaded: [None, None],
        }
    }

    /// Sets the slot in which each interface, by its index, counts. To be called before the first load.
    pub(super) fn serve(&mut self, interfaces: &[(u32, u32)]) -> Result<(), DatapathError> {
        let slots = InterfaceSlots::of(interfaces)
            .ok_or_else(|| DatapathError::BadObject("interface slots are out of range".to_owned()))?;
        let slots = slots.to_bytes();
        self.kept.made_with(&slots);
        let globals = HashMap::from([(SLOTS_GLOBAL, (slots.as_slice(), true))]);
        self.object.patch_map_data(globals).map_err(|e| bad(&e))
    }

    /// The programs, with or without packets of several buffers: those that an earlier daemon has left, where these would be the
    /// same.
    pub(super) fn load(&mut self, frags: bool) -> Result<Program, DatapathError> {
        let variant = usize::from(!frags);
        let result = match &self.loaded[variant] {
            Some(loaded) => loaded.clone(),
            None => match self.find(frags) {
                Some(program) => {
                    self.stages.take_over();
                    Ok(Arc::new(program))
                }
                None => self.load_new(frags)?.map(Arc::new),
            },
        };
        self.loaded[variant] = Some(result.clone());
        result.map_err(|reason| DatapathError::Load { reason })
    }

    /// The programs that an earlier daemon left, if they are complete.
    fn find(&self, frags: bool) -> Option<Loaded> {
        let (entry, stages) = self.kept.find(frags).zip(self.kept.find_stages(frags))?;
        let is_there = |slot: u32| sys::lookup(stages.as_fd(), &slot, &mut [0u32]).unwrap_or(false);
        slots().all(|(slot, _)| is_there(slot)).then_some(Loaded {
            entry,
            _stages: stages,
        })
    }

    /// Creates the maps and prepares loading. To be called once interfaces are known.
    pub(super) fn prepare(&mut self) -> Result<Arc<Ready>, DatapathError> {
        if let Some(ready) = &self.ready {
            return Ok(Arc::clone(ready));
        }
        let ready = Arc::new(prepare(
            &mut self.object,
            mem::take(&mut self.made),
            &programs(),
            &self.pins,
        )?);
        Ok(Arc::clone(self.ready.insert(ready)))
    }

    /// Loads the entry and the wanted stages, and pins the entry and the map of stages. The inner error is the kernel's refusal.
    fn load_new(&mut self, frags: bool) -> Result<Result<Loaded, String>, DatapathError> {
        let ready = &self.prepare()?;
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| DatapathError::Io { what, source }
        };
        let shape = MapShape {
            map_type: PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: STAGE_SLOTS,
            flags: 0,
        };
        // One for each variant: the kernel lets no program enter one of the other.
        let stages = loading::create_map(map_names::STAGES, &shape, None, None)
            .map_err(io("cannot create the map of stages"))?;
        let license = &self.object.license;
        let loads = |program: &Prepared| {
            program.name == ENTRY || slots().any(|(slot, name)| name == program.name && self.wanted.has(slot))
        };
        let fds = match load_into(ready, license, stages.as_fd(), frags, loads) {
            Ok(fds) => fds,
            Err(LoadError::Refused(reason)) => return Ok(Err(reason)),
            Err(LoadError::Failed(error)) => return Err(error),
        };
        let mut entries = fds.into_iter().filter(|(name, _)| *name == ENTRY);
        let (_, entry) = entries
            .next()
            .ok_or_else(|| DatapathError::BadObject(format!("it has no XDP program \"{ENTRY}\"")))?;
        self.kept
            .keep(entry.as_fd(), Some(stages.as_fd()), frags)
            .map_err(io("cannot pin the program"))?;
        let map = stages.try_clone().map_err(io("cannot hold the map of stages"))?;
        let rest = Rest {
            ready: Arc::clone(ready),
            license: license.clone(),
            maps: vec![(map, frags)],
            loaded: self.wanted,
        };
        Ok(self.stages.add(rest).map(|()| Loaded {
            entry,
            _stages: stages,
        }))
    }

    /// Removes the pins of other programs, once none of the links runs one of them. In between, a packet that an old entry has
    /// taken finds its stages.
    pub(super) fn forget_others(&self, pins: &Pins) -> Result<(), DatapathError> {
        let links = pins.links()?;
        // Most starts find none, and need not wait.
        let removed = self.kept.others().and_then(|others| {
            if others.is_empty() {
                return Ok(());
            }
            let in_use: Vec<u32> = links.iter().map(|link| link.info.program_id).collect();
            sys::GracePeriod::new()?.wait()?;
            Kept::forget(&others, &in_use)
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "programs of an earlier daemon cannot be removed");
        }
        Ok(())
    }
}

/// All programs of the packet path, each once.
fn programs() -> Vec<&'static str> {
    let mut programs: Vec<_> = slots().map(|(_, name)| name).collect();
    programs.push(ENTRY);
    programs.sort_unstable();
    programs.dedup();
    programs
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
    let ready = prepare(&mut object, Made::default(), &[CHECKS_PROGRAM], pins)?;
    let [prepared] = &ready.programs[..] else {
        return Err(DatapathError::BadObject(
            "it has no program of health checks".to_owned(),
        ));
    };
    let program = loading::load_program(&NewProgram {
        name: CHECKS_PROGRAM,
        license: &object.license,
        instructions: &prepared.instructions,
        btf: ready.btf.as_fd(),
        functions: &prepared.functions,
        lines: &prepared.lines,
        frags: false,
    })
    .map_err(|refusal| DatapathError::Load {
        reason: refused(&refusal),
    })?;
    let mut maps = ready.maps.into_iter();
    let (_, checks) = maps
        .find(|(name, _)| name == map_names::CHECKS)
        .ok_or_else(|| DatapathError::BadObject(format!("it has no map {}", map_names::CHECKS)))?;
    let pinned = kept
        .keep(program.as_fd(), None, false)
        .and_then(|()| Kept::forget(&kept.others()?, &[]));
    if let Err(error) = pinned {
        tracing::warn!(%error, "the program of health checks cannot be pinned: the next start takes longer");
    }
    Ok([program, checks])
}

/// Puts the program in the place of the one that a pinned link holds.
pub(super) fn take_over(program: &Program, pin: &Path) -> Result<(), String> {
    let (link, _) = sys::pinned_xdp_link(pin).map_err(|e| e.to_string())?;
    loading::update_link(&link, program.as_fd()).map_err(|e| e.to_string())
}
