//! The first bytes of a frame, at offsets that the compiler knows: one check of bounds is enough for all of them.

use lb_wire::load::{load32, load64};

use crate::packet::Packet;

/// `LEN` bytes from the start of a frame on. Read before the frame grows or is cut: the verifier refuses a program that reads
/// later.
pub(crate) struct Start<const LEN: usize>(*const u8);

impl<const LEN: usize> Start<LEN> {
    /// Those of a frame; `None` if they do not lie in its linear part.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet) -> Option<Self> {
        packet.start::<LEN>().map(Self)
    }

    /// 4 bytes as they stand in memory.
    #[inline(always)]
    pub(crate) fn word<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 4 <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { load32::<AT>(self.0) }
    }

    /// 8 bytes as they stand in memory.
    #[inline(always)]
    pub(crate) fn double<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 8 <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { load64::<AT>(self.0) }
    }
}
