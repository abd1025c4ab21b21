//! Slots of a ring: which backend a hash leads to, and who had it before.

use crate::{backend::BackendId, plain_data};

/// One slot. `current == previous` means stable: no flow look-up is needed for a packet that lands here.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingSlot {
    /// Takes new flows.
    pub current: BackendId,
    /// Takes flows older than the last change of this slot, while they may still exist.
    pub previous: BackendId,
}

impl RingSlot {
    /// A slot that belongs to one backend alone.
    #[inline(always)]
    pub const fn stable(backend: BackendId) -> Self {
        Self {
            current: backend,
            previous: backend,
        }
    }
}

/// The slot of a flow's hash in a ring of `size` slots. Multiply and shift instead of a division (Lemire, "Fast
/// random integer generation in an interval", 2019); uniform to within `size / 2^32`.
#[inline(always)]
pub const fn index(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

const _: () = assert!(size_of::<RingSlot>() == 4, "read in one load");

plain_data!(RingSlot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_stays_inside_the_ring_and_reaches_both_ends() {
        for size in [1, 251, 65_537, 131_071] {
            assert_eq!(index(0, size), 0);
            assert_eq!(index(u32::MAX, size), size - 1);
        }
    }
}
