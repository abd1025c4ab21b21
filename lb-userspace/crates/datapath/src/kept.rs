//! Programs pinned beside their maps, under names made of all that they were made from: a start that would load the same one
//! again finds it there. Checking it is most of what a start takes, and nothing is put in its place on the interfaces.

use std::{
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
use lb_common::map_names;

use super::{object, sys};

/// Where programs are kept, and which of them is ours.
pub(super) struct Kept {
    /// Its name, with which that of its pins begins.
    program: &'static str,
    /// Pins of the maps that the program works on.
    maps: PathBuf,
    /// Pins of programs.
    programs: PathBuf,
    /// Of this binary's object, which is large.
    object: DefaultHasher,
    /// Values of the program's read-only globals.
    globals: Vec<u8>,
}

impl Kept {
    /// Of one program, for maps pinned in the directory `maps`, and programs in `programs`.
    pub(super) fn new(program: &'static str, maps: PathBuf, programs: PathBuf) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.write(object::bytes());
        Self {
            program,
            maps,
            programs,
            object: hasher,
            globals: Vec::new(),
        }
    }

    /// Tells the values of the program's read-only globals.
    pub(super) fn made_with(&mut self, globals: &[u8]) {
        globals.clone_into(&mut self.globals);
    }

    /// The program that would be loaded, with or without packets of several buffers, if it is kept.
    pub(super) fn find(&self, frags: bool) -> Option<OwnedFd> {
        sys::pinned(&self.pin(frags)?).ok().flatten()
    }

    /// The map `name` that the kept program has for itself: one that is not pinned.
    pub(super) fn own_map(&self, frags: bool, name: &str) -> Option<OwnedFd> {
        let ids = ProgramInfo::from_pin(self.pin(frags)?).ok()?.map_ids().ok()??;
        let maps = ids.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
        let map = maps.into_iter().find(|map| map.name_as_str() == Some(name))?;
        map.fd().ok()?.as_fd().try_clone_to_owned().ok()
    }

    /// Keeps a program that was just loaded, and no other of its name but its variant.
    pub(super) fn keep(&self, program: BorrowedFd<'_>, frags: bool) -> io::Result<()> {
        let no_maps = || io::Error::other("its maps are not pinned");
        let pin = self.pin(frags).ok_or_else(no_maps)?;
        let variant = self.pin(!frags).ok_or_else(no_maps)?;
        for entry in fs::read_dir(&self.programs)? {
            let path = entry?.path();
            if path != variant && self.is_of_program(&path) {
                fs::remove_file(path)?;
            }
        }
        sys::pin(program, &pin)
    }

    /// Where a program is pinned that is made of this binary's object, these globals and the pinned maps; `None` where one of
    /// those is missing.
    fn pin(&self, frags: bool) -> Option<PathBuf> {
        let mut hasher = self.object.clone();
        hasher.write(&self.globals);
        hasher.write_u8(frags.into());
        for name in map_names::PINNED {
            hasher.write_u32(map_id(&self.maps.join(name))?);
        }
        Some(
            self.programs
                .join(format!("{}-{:016x}", self.program, hasher.finish())),
        )
    }

    /// Whether a pin is one of the program's, of whatever it was made.
    fn is_of_program(&self, pin: &Path) -> bool {
        let name = pin.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.split_once('-'))
            .is_some_and(|(program, _)| program == self.program)
    }
}

/// The kernel's number of a pinned map: another map under the same name has another.
fn map_id(pin: &Path) -> Option<u32> {
    Some(MapData::from_pin(pin).ok()?.info().ok()?.id())
}
