//! Work of a start before it changes anything that others see.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    thread::{self, JoinHandle},
};

use lb_common::map_names;

use super::{
    make::{create, on_all_cpus, order, types},
    object::{Map, Variant},
    pin::layout,
    spread::Spread,
};
use crate::error::DatapathError;

/// Entries from which on a map takes the kernel a while to make.
const MANY: u32 = 1 << 12;

/// Maps by their names, none of which is pinned.
type Made = HashMap<&'static str, OwnedFd>;

/// Creates large maps on threads beside the rest of the start, if none are pinned. They are invisible until they are pinned, and
/// disappear with the process.
#[derive(Debug, Default)]
pub struct EarlyStart(Progress);

#[derive(Debug, Default)]
enum Progress {
    /// There is nothing to be made early.
    #[default]
    Nothing,
    /// All is made.
    Made(Made),
    /// A thread makes them.
    Making(JoinHandle<Result<Made, DatapathError>>),
}

impl EarlyStart {
    /// Begins, for pins in the directory `pin_dir`; `anew`: the present pins will not be used.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(pin_dir: &Path, anew: bool) -> io::Result<Self> {
        let takes_over = !anew && layout(pin_dir).exists();
        if takes_over {
            return Ok(Self::default());
        }
        let thread = thread::Builder::new().name("lb-early".to_owned());
        let spread = Spread::from_here();
        let work = move || {
            spread.join();
            make_early()
        };
        Ok(Self(Progress::Making(thread.spawn(work)?)))
    }

    /// These maps, which are there already.
    pub(super) const fn of_maps(maps: Made) -> Self {
        Self(Progress::Made(maps))
    }

    /// Whether a map is one of those that it makes.
    pub(super) fn makes(&self, map: &Map) -> bool {
        match &self.0 {
            Progress::Nothing => false,
            Progress::Made(made) => made.contains_key(map.name),
            Progress::Making(_) => is_large(map),
        }
    }

    /// Waits for the maps. One that could not be made is missing, so that another attempt reports the reason.
    ///
    /// # Errors
    /// None could be made.
    pub(super) fn finish(self) -> Result<Made, DatapathError> {
        match self.0 {
            Progress::Nothing => Ok(Made::new()),
            Progress::Made(made) => Ok(made),
            Progress::Making(thread) => {
                let died = |_| DatapathError::BadObject("the thread that creates its maps died".to_owned());
                thread.join().map_err(died)?
            }
        }
    }
}

/// Whether a map takes the kernel a while to make, and packets may use it from the beginning.
fn is_large(map: &Map) -> bool {
    let is_used = !map_names::LATE.contains(&map.name) && map.name != map_names::CHECKS;
    is_used && map.usual_shape().max_entries >= MANY
}

fn make_early() -> Result<Made, DatapathError> {
    let parts = Variant::Usual.parts()?;
    let btf = types(parts)?;
    let mut large: Vec<&Map> = parts.maps.iter().filter(|map| is_large(map)).collect();
    large.sort_by_key(|map| order(map));
    let fds = on_all_cpus(large.len(), |index| create(large[index], btf.as_fd()))?;
    let maps = large.into_iter().zip(fds);
    Ok(maps.filter_map(|(map, fd)| Some((map.name, fd.ok()?))).collect())
}
