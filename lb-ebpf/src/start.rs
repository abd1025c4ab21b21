//! The first bytes of a frame, at offsets that the compiler knows: one check of bounds is enough for all of them.

use lb_wire::load::{load32, load64, store16, store32, store64};

use crate::packet::{MACS_LEN, Macs, Packet};

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

/// `LEN` bytes from the start of a frame on, to be written: as [`Start`], and before the frame changes again.
pub(crate) struct StartMut<const LEN: usize>(*mut u8);

impl<const LEN: usize> StartMut<LEN> {
    /// Those of a frame; `None` if they do not lie in its linear part.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet) -> Option<Self> {
        packet.start::<LEN>().map(|start| Self(start.cast_mut()))
    }

    /// Writes 2 bytes as they stand in memory.
    #[inline(always)]
    pub(crate) fn set_half<const AT: usize>(&self, half: u16) {
        const { assert!(AT + 2 <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { store16::<AT>(self.0, half.into()) };
    }

    /// Writes 4 bytes as they stand in memory.
    #[inline(always)]
    pub(crate) fn set_word<const AT: usize>(&self, word: u32) {
        const { assert!(AT + 4 <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { store32::<AT>(self.0, word.into()) };
    }

    /// Writes 8 bytes as they stand in memory.
    #[inline(always)]
    pub(crate) fn set_double<const AT: usize>(&self, double: u64) {
        const { assert!(AT + 8 <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { store64::<AT>(self.0, double) };
    }

    /// Writes the addresses of the frame.
    #[inline(always)]
    pub(crate) fn set_macs(&self, macs: Macs) {
        const { assert!(MACS_LEN <= LEN) };
        // SAFETY: in bounds, as `of` has checked.
        unsafe { macs.write(self.0) };
    }
}
