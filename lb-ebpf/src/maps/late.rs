//! Whether the maps of [`lb_common::map_names::LATE`] are there.

use core::ptr;

/// Whether they are: the first program of a cold start has placeholders for them; set by the loader.
#[unsafe(no_mangle)]
static HAS_LATE_MAPS: u32 = 1;

/// Whether they are there. No packet comes to ask while they are not; but the verifier, which knows the value, skips all that uses
/// them then. To be asked only where one of them is about to be used, so that it costs other packets nothing.
#[inline(always)]
pub(crate) fn are_there() -> bool {
    // Volatile: the loader sets the value, which the compiler takes for constant.
    // SAFETY: a read of a constant.
    unsafe { ptr::read_volatile(&raw const HAS_LATE_MAPS) != 0 }
}
