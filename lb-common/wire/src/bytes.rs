//! A frame in memory.

use crate::{
    frame::{Frame, MAX_OFFSET},
    header::Protocol,
    next_stage::NextStage,
    walk,
};

/// A whole frame as a slice.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

// SAFETY: the range is one of the slice.
unsafe impl Frame for Bytes<'_> {
    fn frame_len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let all = self.0.get(offset..)?.get(..size_of::<T>())?;
        // Nothing writes through it: reading headers is all that is written over `Frame`.
        (offset <= MAX_OFFSET).then(|| all.as_ptr().cast_mut().cast())
    }

    fn extension_headers(&self, first: u8, offset: usize) -> Result<(Protocol, usize), NextStage> {
        walk::extension_headers(self, first, offset)
    }

    fn has_fragment_header(&self) -> bool {
        walk::has_fragment_header(self)
    }
}
