//! The BPF object inside this binary, and the maps that it defines.

use aya_obj::{Map, Object};
use lb_common::{
    limits::{MAX_BACKENDS, MAX_SERVICES},
    map_names,
};

use super::{DatapathError, maps};

/// The object, or nothing where the daemon was built without one. Aligned, as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// The object of the tunnel end, or nothing where the daemon was built without one.
static DECAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf-decap.o"));

/// A map's definition, as far as the kernel keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MapShape {
    /// `enum bpf_map_type`.
    pub(super) map_type: u32,
    /// Bytes of a key.
    pub(super) key_size: u32,
    /// Bytes of a value.
    pub(super) value_size: u32,
    /// Entries at most.
    pub(super) max_entries: u32,
    /// `BPF_F_…`.
    pub(super) flags: u32,
}

/// Type of a map of programs (`BPF_MAP_TYPE_PROG_ARRAY`).
const PROG_ARRAY: u32 = 3;

impl MapShape {
    /// The shape of a map of programs.
    pub(super) const fn of_programs(slots: u32) -> Self {
        Self {
            map_type: PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: slots,
            flags: 0,
        }
    }

    /// The shape that a definition asks for.
    pub(super) const fn of(map: &Map) -> Self {
        Self {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        }
    }

    /// The first field in which `found` differs from the expected shape, as text.
    pub(super) fn difference(&self, found: &Self) -> Option<String> {
        let Self {
            map_type,
            key_size,
            value_size,
            max_entries,
            flags,
        } = *self;
        [
            ("type", map_type, found.map_type),
            ("key size", key_size, found.key_size),
            ("value size", value_size, found.value_size),
            ("capacity", max_entries, found.max_entries),
            ("flags", flags, found.flags),
        ]
        .into_iter()
        .find(|(_, expected, found)| expected != found)
        .map(|(what, expected, found)| format!("its {what} is {found} instead of {expected}"))
    }
}

/// The embedded object, parsed, with its maps sized for this machine.
///
/// # Errors
/// [`DatapathError::NoObject`] where the daemon was built without one.
pub(super) fn parse() -> Result<Object, DatapathError> {
    check()?;
    let mut object = Object::parse(OBJECT).map_err(|e| DatapathError::BadObject(super::error::chain(&e)))?;
    let rows = u32::try_from(maps::cpus()?).unwrap_or(u32::MAX);
    for (name, length) in [
        (map_names::SERVICE_TRAFFIC, MAX_SERVICES),
        (map_names::SERVICE_DROPS, MAX_SERVICES),
        (map_names::BACKEND_TRAFFIC, MAX_BACKENDS),
        (map_names::BACKEND_SIGNALS, MAX_BACKENDS),
    ] {
        if let Some(map) = object.maps.get_mut(name) {
            map.set_max_entries(rows.saturating_mul(length));
        }
    }
    Ok(object)
}

/// Whether there is an object.
///
/// # Errors
/// As [`parse`].
pub(super) const fn check() -> Result<(), DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::NoObject);
    }
    Ok(())
}

/// The embedded object as it stands in this binary.
pub(super) const fn bytes() -> &'static [u8] {
    OBJECT
}

/// The embedded object of `lb decap`.
///
/// # Errors
/// As [`parse`].
pub(super) fn decap() -> Result<&'static [u8], DatapathError> {
    if DECAP.is_empty() {
        return Err(DatapathError::NoObject);
    }
    Ok(DECAP)
}

/// Shapes of all pinned maps, as the object defines them, in the order of [`map_names::PINNED`].
pub(super) fn map_shapes(object: &Object) -> Result<Vec<(&'static str, MapShape)>, DatapathError> {
    map_names::PINNED
        .into_iter()
        .map(|name| {
            let map = object
                .maps
                .get(name)
                .ok_or_else(|| DatapathError::BadObject(format!("it defines no map {name}")))?;
            Ok((name, MapShape::of(map)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
