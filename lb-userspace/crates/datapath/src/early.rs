//! Work of a start before it changes anything that others see.

use std::{
    io,
    path::Path,
    thread::{self, JoinHandle},
};

use aya_obj::Object;

use super::{
    DatapathError, object,
    pin::layout,
    prepare::{Made, make_early},
};

/// The object, and the maps made from it.
pub(super) type Parsed = Result<(Object, Made), DatapathError>;

/// Parses the program on a thread beside the rest of the start, and creates its large maps if none are pinned. These maps are
/// invisible until they are pinned, and disappear with the process.
#[derive(Debug)]
pub struct EarlyStart(JoinHandle<Parsed>);

impl EarlyStart {
    /// Begins, for pins in the directory `pin_dir`; `anew`: the present pins will not be used.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(pin_dir: &Path, anew: bool) -> io::Result<Self> {
        let takes_over = !anew && layout(pin_dir).exists();
        let work = move || {
            let mut object = object::parse()?;
            let made = if takes_over {
                Made::default()
            } else {
                make_early(&mut object)?
            };
            Ok((object, made))
        };
        let thread = thread::Builder::new().name("lb-early".to_owned()).spawn(work)?;
        Ok(Self(thread))
    }

    pub(super) fn finish(self) -> Parsed {
        let died = |_| DatapathError::BadObject("the thread that parses it died".to_owned());
        self.0.join().map_err(died)?
    }
}
