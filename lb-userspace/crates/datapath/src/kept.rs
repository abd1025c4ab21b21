//! Programs pinned beside their maps, under names derived from all their inputs: a start that would load the same program
//! finds it there. This saves most of the time of a start, which is verification, and the exchange on the interfaces.

use std::{
    cell::OnceCell,
    fs,
    hash::{DefaultHasher, Hasher as _},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, MapInfo},
    programs::ProgramInfo,
};
use lb_common::{map_names, stage::StageSet};

use super::{gate::Gate, object::Variant, sys};
use crate::needs::Needs;

/// Suffixes of a program's name in the name of its pin, and in the name of the pin of its map of stages.
const PROGRAM: &str = "";
const STAGES: &str = "_stages";
/// Of the program that enters the first one, and of the map by which it does so.
const GATE: &str = "_gate";
const GATE_MAP: &str = "_gate_map";
/// Begin of what the pins of the first program of a cold start have in the place of what it was made from.
const FIRST: &str = "first";

/// A pin of another program, or of the map of its stages.
pub(super) struct Other {
    pub(super) pin: PathBuf,
    /// The pins of the program, and of its gate.
    programs: [PathBuf; 2],
}

impl Other {
    /// Whether its program, or the gate before it, is among those `in_use`, by the kernel's number.
    pub(super) fn is_in_use(&self, in_use: &[u32]) -> bool {
        let is_used =
            |pin: &PathBuf| ProgramInfo::from_pin(pin).is_ok_and(|info| in_use.contains(&info.id()));
        self.programs.iter().any(is_used)
    }
}

/// The directory of pinned programs, and the inputs that identify ours.
pub(super) struct Kept {
    /// Its name, with which the names of its pins begin.
    program: &'static str,
    /// Pins of the maps that the program works on.
    maps: PathBuf,
    /// Pins of programs.
    programs: PathBuf,
    /// Of the object, which is large.
    object: DefaultHasher,
    /// Values of the program's read-only globals.
    globals: Vec<u8>,
    /// The kernel's numbers of the pinned maps, once all of them are there: asking for them takes a hundred system calls.
    map_ids: OnceCell<Vec<u32>>,
}

impl Kept {
    /// Of one program of an object, for maps pinned in the directory `maps`, and programs in `programs`.
    pub(super) fn new(program: &'static str, variant: Variant, maps: PathBuf, programs: PathBuf) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.write(variant.bytes());
        Self {
            program,
            maps,
            programs,
            object: hasher,
            globals: Vec::new(),
            map_ids: OnceCell::new(),
        }
    }

    /// Sets the values of the program's read-only globals.
    pub(super) fn made_with(&mut self, globals: &[u8]) {
        globals.clone_into(&mut self.globals);
    }

    /// The program that would be loaded, with or without packets of several buffers, if it is kept.
    pub(super) fn find(&self, frags: bool) -> Option<OwnedFd> {
        sys::pinned(&self.pin_of(PROGRAM, frags)?).ok().flatten()
    }

    /// The map of its stages, if it is kept.
    pub(super) fn find_stages(&self, frags: bool) -> Option<OwnedFd> {
        sys::pinned(&self.pin_of(STAGES, frags)?).ok().flatten()
    }

    /// The map `name` that the kept program has for itself: one that is not pinned.
    pub(super) fn own_map(&self, frags: bool, name: &str) -> Option<OwnedFd> {
        let ids = ProgramInfo::from_pin(self.pin_of(PROGRAM, frags)?)
            .ok()?
            .map_ids()
            .ok()??;
        let maps = ids.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
        let map = maps.into_iter().find(|map| map.name_as_str() == Some(name))?;
        map.fd().ok()?.as_fd().try_clone_to_owned().ok()
    }

    /// Keeps a program that was just loaded, and the map of its stages.
    pub(super) fn keep(
        &self,
        program: BorrowedFd<'_>,
        stages: Option<BorrowedFd<'_>>,
        frags: bool,
    ) -> io::Result<()> {
        let no_maps = || io::Error::other("its maps are not pinned");
        let pins = [(Some(program), PROGRAM), (stages, STAGES)];
        for (object, suffix) in pins {
            let Some(object) = object else { continue };
            let path = self.pin_of(suffix, frags).ok_or_else(no_maps)?;
            // The present pin is incomplete, or it would have been found.
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => sys::pin(object, &path)?,
            }
        }
        Ok(())
    }

    /// Keeps the first program of a cold start, which has `needs`, with its map of stages and its gate, until the whole program takes
    /// its place.
    pub(super) fn keep_first(
        &self,
        program: BorrowedFd<'_>,
        stages: BorrowedFd<'_>,
        gate: Option<&Gate>,
        needs: Needs,
        frags: bool,
    ) -> io::Result<()> {
        let made_of = self.first_made_of(frags);
        let made_of = made_of.ok_or_else(|| io::Error::other("its maps are not pinned"))?;
        let name = |suffix: &str| {
            let Needs { stages, late_maps } = needs;
            // Pins must not have a point in their names.
            let has = format!("{:x}_{}", stages.bits(), u8::from(late_maps));
            self.programs
                .join(format!("{}{suffix}-{made_of}_{has}", self.program))
        };
        // In this order: one without its map and gate is not found.
        if let Some(gate) = gate {
            sys::pin(gate.map.as_fd(), &name(GATE_MAP))?;
            sys::pin(gate.program.as_fd(), &name(GATE))?;
        }
        sys::pin(stages, &name(STAGES))?;
        sys::pin(program, &name(PROGRAM))
    }

    /// The first program that an earlier daemon has left, if this one would load the same: entry, map of stages, and what it has.
    pub(super) fn find_first(&self, frags: bool) -> Option<(OwnedFd, OwnedFd, Needs)> {
        let begin = format!("{}-{}_", self.program, self.first_made_of(frags)?);
        let mut pins = fs::read_dir(&self.programs).ok()?.flatten();
        let has = pins.find_map(|pin| Some(pin.file_name().to_str()?.strip_prefix(&begin)?.to_owned()))?;
        let (stages, late_maps) = has.split_once('_')?;
        let needs = Needs {
            stages: StageSet::of_bits(u64::from_str_radix(stages, 16).ok()?),
            late_maps: late_maps == "1",
        };
        let pinned = |pin: PathBuf| sys::pinned(&pin).ok().flatten();
        let entry = pinned(self.programs.join(format!("{begin}{has}")))?;
        let stages = begin.replacen('-', &format!("{STAGES}-"), 1);
        Some((
            entry,
            pinned(self.programs.join(format!("{stages}{has}")))?,
            needs,
        ))
    }

    /// What the pins of a first program say that it was made from: the maps that are no placeholders in it, and all else.
    fn first_made_of(&self, frags: bool) -> Option<String> {
        let mut hasher = self.object.clone();
        hasher.write(&self.globals);
        let names = map_names::PINNED.iter();
        for name in names.filter(|name| !map_names::LATE.contains(name)) {
            hasher.write_u32(map_id(&self.maps.join(name))?);
        }
        Some(format!("{FIRST}{}_{:016x}", u8::from(frags), hasher.finish()))
    }

    /// The pins of other programs of its name, and what they belong to; its variants are not among them.
    pub(super) fn others(&self) -> io::Result<Vec<Other>> {
        let own: Vec<PathBuf> = [(PROGRAM, true), (PROGRAM, false), (STAGES, true), (STAGES, false)]
            .into_iter()
            .filter_map(|(suffix, frags)| self.pin_of(suffix, frags))
            .collect();
        let mut others = pins_of(self.program, &self.programs)?;
        others.retain(|other| !own.contains(&other.pin));
        Ok(others)
    }

    /// Removes the pins of other programs except those `in_use`, by the kernel's number.
    pub(super) fn forget(others: &[Other], in_use: &[u32]) -> io::Result<()> {
        // All pins are read first: a program without a pin does not count as running.
        let gone: Vec<&Other> = others.iter().filter(|other| !other.is_in_use(in_use)).collect();
        gone.iter().try_for_each(|other| fs::remove_file(&other.pin))
    }

    /// Pin of a program with this binary's object, these globals and the pinned maps, or of its stages; `None` if one of the
    /// maps is missing.
    fn pin_of(&self, suffix: &str, frags: bool) -> Option<PathBuf> {
        let mut hasher = self.object.clone();
        hasher.write(&self.globals);
        hasher.write_u8(frags.into());
        for id in self.map_ids()? {
            hasher.write_u32(*id);
        }
        Some(
            self.programs
                .join(format!("{}{suffix}-{:016x}", self.program, hasher.finish())),
        )
    }

    /// The kernel's numbers of all pinned maps; `None` where one is missing.
    fn map_ids(&self) -> Option<&[u32]> {
        if self.map_ids.get().is_none() {
            let pins = map_names::PINNED.iter().map(|name| self.maps.join(name));
            let ids: Vec<u32> = pins.map(|pin| map_id(&pin)).collect::<Option<_>>()?;
            return Some(self.map_ids.get_or_init(|| ids));
        }
        self.map_ids.get().map(Vec::as_slice)
    }
}

/// The pins in a directory that belong to programs of this name, whatever they were made from.
pub(super) fn pins_of(program: &str, programs: &Path) -> io::Result<Vec<Other>> {
    let mut pins = Vec::new();
    for entry in fs::read_dir(programs)? {
        let pin = entry?.path();
        if let Some(programs) = programs_of(program, &pin) {
            pins.push(Other { pin, programs });
        }
    }
    Ok(pins)
}

/// The pins of the program, and of its gate, that a pin belongs to: any program of this name.
fn programs_of(program: &str, pin: &Path) -> Option<[PathBuf; 2]> {
    let (name, made_of) = pin.file_name()?.to_str()?.split_once('-')?;
    let suffix = name.strip_prefix(program)?;
    let of = |suffix| pin.with_file_name(format!("{program}{suffix}-{made_of}"));
    [PROGRAM, STAGES, GATE, GATE_MAP]
        .contains(&suffix)
        .then(|| [of(PROGRAM), of(GATE)])
}

/// The kernel's number of a pinned map: another map under the same name has another.
fn map_id(pin: &Path) -> Option<u32> {
    Some(MapData::from_pin(pin).ok()?.info().ok()?.id())
}
