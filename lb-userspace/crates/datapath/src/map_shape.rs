//! Definitions of maps.

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
