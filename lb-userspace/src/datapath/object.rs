//! The BPF object inside this binary: what maps it defines, and its variant without multi-buffer packets.

use std::borrow::Cow;

use aya_obj::Object;
use lb_common::map_names;

use super::DatapathError;

/// The object, or nothing where the daemon was built without one. Aligned, as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// Name of the section whose program takes packets of several buffers, and of the one that does not; as C strings.
const FRAGS_SECTION: &[u8] = b"xdp.frags\0";
const PLAIN_SECTION: &[u8] = b"xdp\0\0\0\0\0\0\0";
const _: () = assert!(FRAGS_SECTION.len() == PLAIN_SECTION.len());

/// What the kernel keeps of a map's definition.
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

impl MapShape {
    /// The first field in which `found` is not what is expected, in words.
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

/// The embedded object.
///
/// # Errors
/// [`DatapathError::NoObject`] where the daemon was built without one.
pub(super) fn bytes() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::NoObject);
    }
    Ok(OBJECT)
}

/// Shapes of all pinned maps, as the object defines them, in the order of [`map_names::PINNED`].
pub(super) fn map_shapes(object: &[u8]) -> Result<Vec<(&'static str, MapShape)>, DatapathError> {
    let object = Object::parse(object).map_err(|e| DatapathError::BadObject(super::error::chain(&e)))?;
    map_names::PINNED
        .into_iter()
        .map(|name| {
            let map = object
                .maps
                .get(name)
                .ok_or_else(|| DatapathError::BadObject(format!("it defines no map {name}")))?;
            let shape = MapShape {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            };
            Ok((name, shape))
        })
        .collect()
}

/// The object with or without the promise that its program takes packets of several buffers.
///
/// The loader reads that promise from the name of the program's section and has no call to change it, so the name is
/// changed: in the table of section names and among the type information's strings, which refer to sections by name.
pub(super) fn variant(object: &'static [u8], frags: bool) -> Cow<'static, [u8]> {
    if frags {
        return Cow::Borrowed(object);
    }
    let mut plain = object.to_vec();
    let mut at = 0;
    while let Some(rest) = plain.get_mut(at..at + FRAGS_SECTION.len()) {
        if rest == FRAGS_SECTION {
            rest.copy_from_slice(PLAIN_SECTION);
        }
        at += 1;
    }
    Cow::Owned(plain)
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

    #[test]
    fn the_plain_variant_names_no_section_for_several_buffers() {
        static OBJECT: &[u8] = b"\0.relxdp.frags\0xdp.frags\0xdp.fragsible\0";
        assert_eq!(variant(OBJECT, true), OBJECT);
        assert_eq!(
            variant(OBJECT, false).as_ref(),
            b"\0.relxdp\0\0\0\0\0\0\0xdp\0\0\0\0\0\0\0xdp.fragsible\0"
        );
    }
}
