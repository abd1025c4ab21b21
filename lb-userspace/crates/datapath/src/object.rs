//! The parts of the BPF object inside this binary: programs, and the maps that they use.

use std::{borrow::Cow, ffi::CStr, ops::Range};

use lb_common::{
    limits::{MAX_BACKENDS, MAX_SERVICES},
    map_names,
};

use crate::{cpus::cpus, error::DatapathError, map_shape::MapShape};

/// All bytes of the parts of the usual object, and of the one that records packets.
const USUAL_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/parts.bin"));
const MONITORED_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitored.bin"));

/// Their parts; nothing where the daemon was built without an object.
static USUAL: Option<Parts> = include!(concat!(env!("OUT_DIR"), "/parts.rs"));
static MONITORED: Option<Parts> = include!(concat!(env!("OUT_DIR"), "/monitored.rs"));

/// The map of read-only globals.
const GLOBALS_MAP: &str = ".rodata";

/// Some of an object's bytes.
#[allow(
    dead_code,
    reason = "only what is generated from an object calls it, and lints also run where none was built"
)]
const fn part(bytes: &'static [u8], begin: usize, len: usize) -> &'static [u8] {
    bytes.split_at(begin).1.split_at(len).0
}

/// The packet path that is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Variant {
    /// The usual one.
    Usual,
    /// The one that records packets, while a monitor runs.
    Monitored,
}

impl Variant {
    /// All bytes of its parts.
    pub(super) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Usual => USUAL_BYTES,
            Self::Monitored => MONITORED_BYTES,
        }
    }

    /// Its parts.
    ///
    /// # Errors
    /// [`DatapathError::NoObject`] where the daemon was built without the object.
    pub(super) fn parts(self) -> Result<&'static Parts, DatapathError> {
        let parts = match self {
            Self::Usual => &USUAL,
            Self::Monitored => &MONITORED,
        };
        parts.as_ref().ok_or(DatapathError::NoObject)
    }
}

/// What the kernel wants of an object.
pub(super) struct Parts {
    /// The programs' licence.
    pub(super) license: &'static CStr,
    /// Type information.
    pub(super) types: &'static [u8],
    /// Read-only globals by name, and where each stands in the data of their map.
    pub(super) globals: &'static [(&'static str, Range<usize>)],
    /// The maps.
    pub(super) maps: &'static [Map],
    /// The programs.
    pub(super) programs: &'static [Program],
}

/// A map's definition.
pub(super) struct Map {
    pub(super) name: &'static str,
    shape: MapShape,
    /// Of the maps in a map of maps.
    pub(super) inner: Option<MapShape>,
    /// Numbers of the types of key and value.
    pub(super) types: Option<[u32; 2]>,
    /// Its content.
    pub(super) data: &'static [u8],
    /// Whether its content never changes.
    pub(super) is_constant: bool,
}

/// A program.
pub(super) struct Program {
    pub(super) name: &'static str,
    instructions: &'static [u8],
    /// Bytes of its instructions at which one begins that refers to a map, and the map's place in the list.
    references: &'static [(usize, usize)],
    /// Its functions and their types.
    pub(super) functions: Records,
    /// Its source lines.
    pub(super) lines: Records,
}

/// Records about instructions, as `struct bpf_func_info` and `struct bpf_line_info`.
pub(super) struct Records {
    pub(super) bytes: &'static [u8],
    /// Bytes of one.
    pub(super) size: usize,
    /// How many.
    pub(super) count: usize,
}

/// Bytes from the begin of an instruction to the descriptor of the map that it refers to.
const DESCRIPTOR: usize = 4;

impl Map {
    /// Its shape on this machine.
    ///
    /// # Errors
    /// The number of CPUs cannot be read.
    pub(super) fn shape(&self) -> Result<MapShape, DatapathError> {
        let row = match self.name {
            map_names::SERVICE_TRAFFIC | map_names::SERVICE_DROPS => MAX_SERVICES,
            map_names::BACKEND_TRAFFIC | map_names::BACKEND_SIGNALS => MAX_BACKENDS,
            _ => return Ok(self.shape),
        };
        let rows = u32::try_from(cpus()?).unwrap_or(u32::MAX);
        Ok(MapShape {
            max_entries: rows.saturating_mul(row),
            ..self.shape
        })
    }

    /// Its shape, however many CPUs there are.
    pub(super) const fn usual_shape(&self) -> MapShape {
        self.shape
    }

    /// Its content, with these values of read-only globals.
    pub(super) fn content(&self, globals: &[(&Range<usize>, &[u8])]) -> Cow<'static, [u8]> {
        // Other sections of constants are maps of their own, in whose data places mean something else.
        if self.name != GLOBALS_MAP {
            return self.data.into();
        }
        let mut data = self.data.to_vec();
        for (range, value) in globals {
            if let Some(place) = data.get_mut((*range).clone())
                && place.len() == value.len()
            {
                place.copy_from_slice(value);
            }
        }
        data.into()
    }
}

impl Program {
    /// Its instructions, with the descriptors of maps by their place in the list.
    pub(super) fn instructions(&self, descriptor: impl Fn(usize) -> i32) -> Vec<u8> {
        let mut instructions = self.instructions.to_vec();
        for (at, map) in self.references {
            if let Some(place) = instructions.get_mut(at + DESCRIPTOR..at + 2 * DESCRIPTOR) {
                place.copy_from_slice(&descriptor(*map).to_ne_bytes());
            }
        }
        instructions
    }

    /// Bytes of its instructions.
    pub(super) fn size(&self) -> usize {
        self.instructions.len()
    }
}

/// The object of the tunnel end, or nothing where the daemon was built without one.
static DECAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf-decap.o"));

/// The embedded object of `lb decap`.
///
/// # Errors
/// As [`Variant::parts`].
pub(super) fn decap() -> Result<&'static [u8], DatapathError> {
    if DECAP.is_empty() {
        return Err(DatapathError::NoObject);
    }
    Ok(DECAP)
}

/// Shapes of all pinned maps on this machine, in the order of [`map_names::PINNED`].
pub(super) fn map_shapes() -> Result<Vec<(&'static str, MapShape)>, DatapathError> {
    let parts = Variant::Usual.parts()?;
    map_names::PINNED
        .into_iter()
        .map(|name| {
            let map = parts.maps.iter().find(|map| map.name == name);
            let map = map.ok_or_else(|| DatapathError::BadObject(format!("it defines no map {name}")))?;
            Ok((name, map.shape()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of constants whose data is 8 bytes.
    const fn constants(name: &'static str) -> Map {
        Map {
            name,
            shape: MapShape {
                map_type: 2,
                key_size: 4,
                value_size: 8,
                max_entries: 1,
                flags: 0,
            },
            inner: None,
            types: None,
            data: &[0; 8],
            is_constant: true,
        }
    }

    /// The compiler puts constants of its own into sections beside that of the globals.
    #[test]
    fn values_of_globals_go_into_their_map_and_into_no_other() {
        let place = 0..4;
        let globals: &[(&Range<usize>, &[u8])] = &[(&place, &[1, 2, 3, 4])];
        assert_eq!(
            constants(".rodata").content(globals)[..],
            [1, 2, 3, 4, 0, 0, 0, 0]
        );
        assert_eq!(constants(".rodata.cst4").content(globals)[..], [0; 8]);
    }

    #[test]
    fn a_pinned_map_of_another_shape_is_never_taken_for_ours() {
        let ours = MapShape {
            map_type: 1,
            key_size: 8,
            value_size: 16,
            max_entries: 4096,
            flags: 1,
        };
        assert_eq!(ours.difference(&ours), None);
        for (found, difference) in [
            (MapShape { map_type: 2, ..ours }, "its type is 2 instead of 1"),
            (
                MapShape { key_size: 16, ..ours },
                "its key size is 16 instead of 8",
            ),
            (
                MapShape {
                    value_size: 8,
                    ..ours
                },
                "its value size is 8 instead of 16",
            ),
            (
                MapShape {
                    max_entries: 1,
                    ..ours
                },
                "its capacity is 1 instead of 4096",
            ),
            (MapShape { flags: 0, ..ours }, "its flags is 0 instead of 1"),
        ] {
            assert_eq!(ours.difference(&found).as_deref(), Some(difference));
        }
    }
}
