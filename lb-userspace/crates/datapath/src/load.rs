//! Loading the programs: the entry and its stages once for all interfaces, in parallel; and the program of health checks.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_common::{
    interfaces::InterfaceSlots,
    map_names,
    stage::{ENTRY, STAGE_SLOTS, StageSet},
};

use super::{
    early::EarlyStart,
    fill::{LoadError, load_into, refused, slots},
    gate::Gate,
    kept::{self, Kept, Other},
    loading::{self, NewProgram},
    monitor::maps::MonitorMaps,
    object::{Program, Variant},
    pin::Pins,
    prepare::{Options, Ready, prepare},
    stages::Stages,
    sys,
};
use crate::{error::DatapathError, grace::GracePeriod, map_shape::MapShape, needs::Needs};

/// The program of health checks through the path, which has no read-only globals.
const CHECKS_PROGRAM: &str = "lb_check";

/// The read-only globals of the programs: where interfaces count, and whether the maps of [`map_names::LATE`] are no placeholders.
const SLOTS_GLOBAL: &str = "INTERFACE_SLOTS";
const LATE_GLOBAL: &str = "HAS_LATE_MAPS";

/// The entry program and the map of its stages, for all interfaces of one daemon.
///
/// The kernel empties a map of programs when only programs refer to it: this and its pin prevent that.
pub(super) struct Loaded {
    entry: OwnedFd,
    _stages: OwnedFd,
    /// The links with this gate run the entry.
    gate: Option<Gate>,
}

impl Loaded {
    /// Whether the links that were made beforehand run it.
    pub(super) const fn stands_behind_gate(&self) -> bool {
        self.gate.is_some()
    }
}

impl AsFd for Loaded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }
}

/// [`Loaded`], in the hands of several.
pub(super) type SharedProgram = Arc<Loaded>;

/// The first program of a cold start.
pub(super) struct First {
    /// What it is to have.
    pub(super) needs: Needs,
    /// What to put it behind.
    pub(super) gate: Option<Gate>,
}

/// Loads the programs for the interfaces of one daemon, at most once with and once without packets of several buffers.
pub(super) struct Loader {
    /// Maps that are made already, or about to be.
    early: EarlyStart,
    pins: PathBuf,
    kept: Kept,
    /// The first program alone is to be loaded; else the whole.
    first: Option<First>,
    /// A first program that an earlier daemon has left will do.
    takes_first: bool,
    /// Such a one was found.
    took_first: bool,
    /// Gets to know what is loaded.
    stages: Stages,
    /// Maps of the monitor that runs, if any: its program is loaded.
    monitor: Option<MonitorMaps>,
    /// Values of the read-only global.
    slots: Vec<u8>,
    ready: Option<Arc<Ready>>,
    /// With packets of several buffers, and without; why not, where the kernel refused it.
    loaded: [Option<Result<SharedProgram, String>>; 2],
}

impl Loader {
    /// A loader with maps and programs from `pins`. The first load creates missing maps.
    pub(super) fn new(early: EarlyStart, pins: &Pins, first: Option<First>, stages: Stages) -> Self {
        Self {
            early,
            pins: pins.current(),
            kept: Kept::new(ENTRY, Variant::Usual, pins.current(), pins.programs()),
            monitor: None,
            first,
            takes_first: false,
            took_first: false,
            stages,
            slots: Vec::new(),
            ready: None,
            loaded: [None, None],
        }
    }

    /// A loader of the usual program, or of the one of a monitor that runs. All maps are there.
    ///
    /// # Errors
    /// The monitor's maps cannot be held.
    pub(super) fn whole(pins: &Pins, monitor: Option<&MonitorMaps>) -> io::Result<Self> {
        let loader = Self::new(EarlyStart::default(), pins, None, Stages::default());
        let Some(monitor) = monitor else {
            return Ok(loader);
        };
        Ok(Self {
            early: EarlyStart::of_maps(monitor.of_program()?),
            kept: Kept::new(ENTRY, Variant::Monitored, pins.current(), pins.programs()),
            monitor: Some(monitor.clone()),
            ..loader
        })
    }

    /// The object that programs are loaded from.
    const fn variant(&self) -> Variant {
        match self.monitor {
            None => Variant::Usual,
            Some(_) => Variant::Monitored,
        }
    }

    /// Has a first program that an earlier daemon has left run on, until the whole one is asked for.
    pub(super) const fn take_first(&mut self) {
        self.takes_first = true;
    }

    /// Sets the slot in which each interface, by its index, counts. To be called before the first load.
    pub(super) fn serve(&mut self, interfaces: &[(u32, u32)]) -> Result<(), DatapathError> {
        let slots = InterfaceSlots::of(interfaces)
            .ok_or_else(|| DatapathError::BadObject("interface slots are out of range".to_owned()))?;
        self.slots = slots.to_bytes().to_vec();
        let mut made_with = self.slots.clone();
        if let Some(monitor) = &self.monitor {
            // Each monitor has maps of its own: the program of another one does not do.
            made_with.extend(monitor.number().to_ne_bytes());
        }
        self.kept.made_with(&made_with);
        Ok(())
    }

    /// The programs, with or without packets of several buffers: those that an earlier daemon has left, where these would be the
    /// same.
    pub(super) fn load(&mut self, frags: bool) -> Result<SharedProgram, DatapathError> {
        let variant = usize::from(!frags);
        let result = match &self.loaded[variant] {
            Some(loaded) => loaded.clone(),
            // Its maps are new, so an earlier daemon has left no program with them.
            None if self.first.is_some() => self.load_new(frags)?.map(Arc::new),
            None => match self.find(frags) {
                Some(program) => {
                    self.stages.are_whole();
                    Ok(Arc::new(program))
                }
                None => match self.find_first(frags) {
                    Some(program) => Ok(Arc::new(program)),
                    None => self.load_new(frags)?.map(Arc::new),
                },
            },
        };
        self.loaded[variant] = Some(result.clone());
        result.map_err(|reason| DatapathError::Load { reason })
    }

    /// The programs that an earlier daemon left, if they are complete.
    fn find(&self, frags: bool) -> Option<Loaded> {
        let (entry, stages) = self.kept.find(frags).zip(self.kept.find_stages(frags))?;
        let is_there = |slot: u32| sys::lookup(stages.as_fd(), &slot, &mut [0u32]).unwrap_or(false);
        slots(self.variant())
            .all(|(slot, _)| is_there(slot))
            .then_some(Loaded {
                entry,
                _stages: stages,
                gate: None,
            })
    }

    /// The first program of a daemon that ended before it had loaded the whole one. All that is programmed can do with it.
    fn find_first(&mut self, frags: bool) -> Option<Loaded> {
        if !self.takes_first {
            return None;
        }
        let (entry, stages, needs) = self.kept.find_first(frags)?;
        self.stages.are_first(needs).ok()?;
        self.took_first = true;
        Some(Loaded {
            entry,
            _stages: stages,
            gate: None,
        })
    }

    /// Creates the maps and prepares loading. To be called once interfaces are known.
    pub(super) fn prepare(&mut self) -> Result<Arc<Ready>, DatapathError> {
        if let Some(ready) = &self.ready {
            return Ok(Arc::clone(ready));
        }
        let has_late_maps = self.first.as_ref().is_none_or(|first| first.needs.late_maps);
        let late = map_names::LATE.iter().filter(|_| !has_late_maps);
        let placeholders: Vec<&str> = late.copied().chain([map_names::CHECKS]).collect();
        let options = Options {
            variant: self.variant(),
            pins: &self.pins,
            placeholders: &placeholders,
            globals: &[
                (SLOTS_GLOBAL, &self.slots),
                (LATE_GLOBAL, &u32::from(has_late_maps).to_ne_bytes()),
            ],
        };
        let ready = Arc::new(prepare(mem::take(&mut self.early), &options)?);
        Ok(Arc::clone(self.ready.insert(ready)))
    }

    /// Loads the first program or the whole, and pins the entry and the map of stages. The inner error is the kernel's refusal.
    fn load_new(&mut self, frags: bool) -> Result<Result<Loaded, String>, DatapathError> {
        let Some(First { needs, gate }) = &self.first else {
            return self.load_whole(frags);
        };
        let mut needs = *needs;
        // The gate takes packets of several buffers: no other program can stand behind it.
        let gate = gate.as_ref().filter(|_| frags).map(Gate::try_clone).transpose();
        let gate = gate.map_err(io("cannot hold the gate"))?;
        let ready = &self.prepare()?;
        let stages = new_stages()?;
        let mut there = StageSet::NONE;
        let mut entry = None;
        loop {
            let missing = needs.stages.without(there);
            let loads = |program: &Program| {
                let is_missing =
                    slots(Variant::Usual).any(|(slot, name)| name == program.name && missing.has(slot));
                is_missing || (entry.is_none() && program.name == ENTRY)
            };
            match load_into(ready, stages.as_fd(), frags, loads) {
                Ok(fds) => entry = entry.or(entry_of(fds)),
                Err(LoadError::Refused(reason)) => return Ok(Err(reason)),
                Err(LoadError::Failed(error)) => return Err(error),
            }
            there = there.and(needs.stages);
            match self.stages.are_first(needs) {
                Ok(()) => break,
                Err(more) if more.late_maps && !needs.late_maps => {
                    // Its maps are placeholders: all is prepared again.
                    self.first = None;
                    self.ready = None;
                    return self.load_whole(frags);
                }
                Err(more) => needs.stages = needs.stages.and(more.stages),
            }
        }
        let entry = entry.ok_or_else(no_entry)?;
        self.kept
            .keep_first(entry.as_fd(), stages.as_fd(), gate.as_ref(), needs, frags)
            .map_err(io("cannot pin the program"))?;
        if let Some(gate) = &gate {
            gate.open(entry.as_fd())
                .map_err(io("cannot put the program behind the gate"))?;
        }
        Ok(Ok(Loaded {
            entry,
            _stages: stages,
            gate,
        }))
    }

    fn load_whole(&mut self, frags: bool) -> Result<Result<Loaded, String>, DatapathError> {
        let ready = &self.prepare()?;
        let stages = new_stages()?;
        let entry = match load_into(ready, stages.as_fd(), frags, |program| {
            is_of_packets(ready.variant, program)
        }) {
            Ok(fds) => entry_of(fds).ok_or_else(no_entry)?,
            Err(LoadError::Refused(reason)) => return Ok(Err(reason)),
            Err(LoadError::Failed(error)) => return Err(error),
        };
        self.kept
            .keep(entry.as_fd(), Some(stages.as_fd()), frags)
            .map_err(io("cannot pin the program"))?;
        self.stages.are_whole();
        Ok(Ok(Loaded {
            entry,
            _stages: stages,
            gate: None,
        }))
    }

    /// Removes the pins of other programs, once none of the links runs one of them. In between, a packet that an old entry has
    /// taken finds its stages.
    pub(super) fn forget_others(&self, pins: &Pins) -> Result<(), DatapathError> {
        // Before the first program none ran, and the whole one comes to this later. The usual program is there while a monitor runs:
        // it soon takes its place again, at the latest by another daemon.
        if self.first.is_some() || self.took_first || self.monitor.is_some() {
            return Ok(());
        }
        let links = pins.links()?;
        // Most starts find none, and need not wait.
        let removed = self.kept.others().and_then(|others| {
            if others.is_empty() {
                return Ok(());
            }
            let in_use: Vec<u32> = links.iter().map(|link| link.info.program_id).collect();
            GracePeriod::new()?.wait()?;
            Kept::forget(&others, &in_use)
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "programs of an earlier daemon cannot be removed");
        }
        Ok(())
    }
}

/// The programs that are pinned before a start takes over, so that one that fails leaves no others behind.
pub(super) struct EarlierPrograms(Vec<PathBuf>);

impl EarlierPrograms {
    /// Those that are there now.
    pub(super) fn of(pins: &Pins) -> io::Result<Self> {
        let pins = kept::pins_of(ENTRY, &pins.programs())?;
        Ok(Self(pins.into_iter().map(|other| other.pin).collect()))
    }

    /// Removes the pins of programs that were pinned since. Those that a link runs by now stay, and take the place of the earlier
    /// ones that none runs any more.
    pub(super) fn restore(&self, pins: &Pins) -> Result<(), DatapathError> {
        let links = pins.links()?;
        let in_use: Vec<u32> = links.iter().map(|link| link.info.program_id).collect();
        let removed = kept::pins_of(ENTRY, &pins.programs()).and_then(|mut gone| {
            let is_new = |other: &Other| !self.0.contains(&other.pin);
            if !gone.iter().any(|other| is_new(other) && other.is_in_use(&in_use)) {
                gone.retain(is_new);
            }
            GracePeriod::new()?.wait()?;
            Kept::forget(&gone, &in_use)
        });
        removed.map_err(io("cannot remove the programs of a start that failed"))
    }
}

/// A map of stages. One for each variant: the kernel lets no program enter one of the other.
fn new_stages() -> Result<OwnedFd, DatapathError> {
    loading::create_map(map_names::STAGES, &MapShape::of_programs(STAGE_SLOTS), None, None)
        .map_err(io("cannot create the map of stages"))
}

fn entry_of(fds: Vec<(&'static str, OwnedFd)>) -> Option<OwnedFd> {
    let mut entries = fds.into_iter().filter(|(name, _)| *name == ENTRY);
    entries.next().map(|(_, entry)| entry)
}

fn no_entry() -> DatapathError {
    DatapathError::BadObject(format!("it has no XDP program \"{ENTRY}\""))
}

fn io(what: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Io {
        what: what.to_owned(),
        source,
    }
}

/// Whether a program is one of the packet path.
fn is_of_packets(variant: Variant, program: &Program) -> bool {
    program.name == ENTRY || slots(variant).any(|(_, name)| name == program.name)
}

/// Loads the program of health checks, which shares the maps pinned below `pins`, or finds the one that an earlier daemon has
/// left among `programs`; returns it and its map of checks.
pub(super) fn checks(pins: &Path, programs: &Path) -> Result<[OwnedFd; 2], DatapathError> {
    let kept = Kept::new(
        CHECKS_PROGRAM,
        Variant::Usual,
        pins.to_owned(),
        programs.to_owned(),
    );
    let found = kept.find(false).zip(kept.own_map(false, map_names::CHECKS));
    if let Some((program, checks)) = found {
        return Ok([program, checks]);
    }
    let options = Options {
        variant: Variant::Usual,
        pins,
        placeholders: &[],
        globals: &[],
    };
    let ready = prepare(EarlyStart::default(), &options)?;
    let program = ready.program(CHECKS_PROGRAM)?;
    let program = loading::load_program(&NewProgram {
        name: CHECKS_PROGRAM,
        license: ready.parts.license,
        instructions: &ready.instructions(program, None),
        btf: ready.btf.as_fd(),
        functions: &program.functions,
        lines: &program.lines,
        frags: false,
    })
    .map_err(|refusal| DatapathError::Load {
        reason: refused(&refusal),
    })?;
    let checks = ready
        .map(map_names::CHECKS)
        .ok_or_else(|| DatapathError::BadObject(format!("it has no map {}", map_names::CHECKS)))?;
    let checks = checks
        .try_clone_to_owned()
        .map_err(io("cannot hold the map of checks"))?;
    let pinned = kept
        .keep(program.as_fd(), None, false)
        .and_then(|()| Kept::forget(&kept.others()?, &[]));
    if let Err(error) = pinned {
        tracing::warn!(%error, "the program of health checks cannot be pinned: the next start takes longer");
    }
    Ok([program, checks])
}

/// Puts the program in the place of the one that a pinned link holds.
pub(super) fn take_over(program: &SharedProgram, pin: &Path) -> Result<(), String> {
    let (link, _) = sys::pinned_xdp_link(pin).map_err(|e| e.to_string())?;
    loading::update_link(&link, program.as_fd()).map_err(|e| e.to_string())
}
