//! Work of a start before it changes anything that others see.

use std::{
    io,
    path::Path,
    thread::{self, JoinHandle},
};

use super::{
    pin::layout,
    prepare::{Made, make_early},
};
use crate::error::DatapathError;

/// Creates large maps on threads beside the rest of the start, if none are pinned. They are invisible until they are pinned, and
/// disappear with the process.
#[derive(Debug)]
pub struct EarlyStart(Option<JoinHandle<Result<Made, DatapathError>>>);

impl EarlyStart {
    /// Begins, for pins in the directory `pin_dir`; `anew`: the present pins will not be used.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(pin_dir: &Path, anew: bool) -> io::Result<Self> {
        let takes_over = !anew && layout(pin_dir).exists();
        if takes_over {
            return Ok(Self(None));
        }
        let thread = thread::Builder::new().name("lb-early".to_owned());
        Ok(Self(Some(thread.spawn(make_early)?)))
    }

    pub(super) fn finish(self) -> Result<Made, DatapathError> {
        let died = |_| DatapathError::BadObject("the thread that creates its maps died".to_owned());
        self.0
            .map_or_else(|| Ok(Made::default()), |thread| thread.join().map_err(died)?)
    }
}
