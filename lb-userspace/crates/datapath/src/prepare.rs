//! Preparation of programs before loading: types and maps in the kernel.

use std::{
    borrow::Cow,
    collections::HashMap,
    io,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use lb_common::map_names;

use super::{
    early::EarlyStart,
    loading,
    make::{create, on_all_cpus, order, types},
    object::{Map, Parts, Program, Variant},
    sys,
};
use crate::{error::DatapathError, map_shape::MapShape};

/// The inputs of loading programs, once their maps exist.
pub(super) struct Ready {
    /// Of which object.
    pub(super) variant: Variant,
    /// The programs and more.
    pub(super) parts: &'static Parts,
    /// Type information.
    pub(super) btf: OwnedFd,
    /// In the order of the parts. Held until the programs hold them.
    pub(super) maps: Vec<OwnedFd>,
}

impl Ready {
    /// A map by its name.
    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let mut maps = self.parts.maps.iter().zip(&self.maps);
        maps.find(|(map, _)| map.name == name).map(|(_, fd)| fd.as_fd())
    }

    /// The program of this name.
    ///
    /// # Errors
    /// [`DatapathError::BadObject`]
    pub(super) fn program(&self, name: &str) -> Result<&'static Program, DatapathError> {
        let mut programs = self.parts.programs.iter();
        programs
            .find(|program| program.name == name)
            .ok_or_else(|| DatapathError::BadObject(format!("it has no XDP program \"{name}\"")))
    }

    /// The instructions of a program, with the maps' descriptors, and that of this map of stages.
    pub(super) fn instructions(&self, program: &Program, stages: Option<BorrowedFd<'_>>) -> Vec<u8> {
        program.instructions(|place| {
            let is_of_stages = self
                .parts
                .maps
                .get(place)
                .is_some_and(|map| map.name == map_names::STAGES);
            let fd = stages.filter(|_| is_of_stages);
            let fd = fd.or_else(|| self.maps.get(place).map(OwnedFd::as_fd));
            fd.map_or(-1, |fd| fd.as_raw_fd())
        })
    }
}

/// What programs are to be prepared with.
pub(super) struct Options<'a> {
    /// Of which object.
    pub(super) variant: Variant,
    /// Pins of maps.
    pub(super) pins: &'a Path,
    /// Maps that no packet uses: they get one entry, and no pin.
    pub(super) placeholders: &'a [&'a str],
    /// Values of read-only globals, by name.
    pub(super) globals: &'a [(&'a str, &'a [u8])],
}

/// Brings types and maps into the kernel: opens those that are pinned, takes those that were made `early`, and creates all others, on
/// all CPUs, since the kernel clears the large ones.
pub(super) fn prepare(early: EarlyStart, options: &Options<'_>) -> Result<Ready, DatapathError> {
    let parts = options.variant.parts()?;
    let btf = types(parts)?;
    let mut globals: Vec<(&Range<usize>, &[u8])> = Vec::new();
    for (name, value) in options.globals {
        let mut all = parts.globals.iter();
        let found = all.find(|(global, range)| global == name && range.len() == value.len());
        let (_, range) = found
            .ok_or_else(|| DatapathError::BadObject(format!("it has no global {name} of that length")))?;
        globals.push((range, value));
    }
    let make = |place: usize, made: &HashMap<&str, OwnedFd>| {
        let map = &parts.maps[place];
        let fd = if options.placeholders.contains(&map.name) {
            let shape = MapShape {
                max_entries: 1,
                ..map.usual_shape()
            };
            loading::create_map(map.name, &shape, None, None)
        } else {
            open_or_create(map, made.get(map.name), options.pins, &globals, btf.as_fd())
        };
        let fd = fd.map_err(|source| DatapathError::Io {
            what: format!("cannot create map {}", map.name),
            source,
        });
        Ok((place, fd?))
    };
    let mut all: Vec<usize> = (0..parts.maps.len()).collect();
    all.sort_by_key(|place| parts.maps.get(*place).map(order));
    // While large maps are still being made, all else is.
    let (last, first): (Vec<usize>, Vec<usize>) = all
        .into_iter()
        .partition(|place| early.makes(&parts.maps[*place]));
    let mut maps = on_all_cpus(first.len(), |index| make(first[index], &HashMap::new()))?;
    let made = early.finish()?;
    maps.extend(on_all_cpus(last.len(), |index| make(last[index], &made))?);
    let mut maps: Vec<(usize, OwnedFd)> = maps.into_iter().collect::<Result<_, DatapathError>>()?;
    maps.sort_unstable_by_key(|(place, _)| *place);
    Ok(Ready {
        variant: options.variant,
        parts,
        btf,
        maps: maps.into_iter().map(|(_, fd)| fd).collect(),
    })
}

fn open_or_create(
    map: &Map,
    made: Option<&OwnedFd>,
    pins: &Path,
    globals: &[(&Range<usize>, &[u8])],
    btf: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let pin = map_names::PINNED.contains(&map.name).then(|| pins.join(map.name));
    if let Some(pin) = &pin
        && let Some(fd) = sys::pinned(pin)?
    {
        return Ok(fd);
    }
    let fd = match made {
        Some(made) => made.try_clone()?,
        None => create(map, btf)?,
    };
    let content: Cow<'_, [u8]> = map.content(globals);
    if !content.is_empty() {
        sys::update(fd.as_fd(), &0u32, &content)?;
    }
    if map.is_constant {
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
