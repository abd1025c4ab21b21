//! Where the state is kept: a trait, a directory that survives a kill at any point, and what becomes of a start where that
//! directory cannot be used.

mod error;
mod file;
mod format;
mod journal;
mod lenient;

use std::path::PathBuf;

pub use self::{error::StoreError, file::FileStore, journal::Record, lenient::LenientStore};
use super::stored::Stored;

/// Something about the store that an operator should look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreProblem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Keeps the state.
pub trait Store {
    /// What was saved last; `None` if nothing ever was.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written. Nothing is overwritten then.
    fn load(&self) -> Result<Option<Stored>, StoreError>;

    /// Saves a state so that it is there after a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written. What was saved before stays.
    fn save(&self, stored: &Stored) -> Result<(), StoreError>;

    /// As [`Self::save`], for the first state of a start, which must not fail for want of a disk that can be written: where
    /// it is not saved, [`Self::unsaved`] says so.
    ///
    /// # Errors
    /// As [`Self::save`].
    fn save_first(&self, stored: &Stored) -> Result<(), StoreError> {
        self.save(stored)
    }

    /// Moves what [`Self::load`] refuses out of the way, and keeps it. Returns where it is now.
    ///
    /// # Errors
    /// It cannot be moved. It is still in its place.
    fn set_aside(&self) -> Result<PathBuf, StoreError>;

    /// What is known beside the desired state, the latest about each thing. What cannot be read is passed over.
    fn recall(&self) -> Vec<Record>;

    /// Notes what is known now, before it has an effect. It outlives the process, and a crash of the machine where
    /// possible. Where it cannot be written, [`Self::problems`] says so.
    fn remember(&self, records: &[Record]);

    /// Forgets all that is known but `records`.
    fn forget_all_but(&self, records: &[Record]);

    /// Why what is in force is not saved; `None` if it is.
    fn unsaved(&self) -> Option<StoreProblem>;

    /// What is wrong with the store.
    fn problems(&self) -> Vec<StoreProblem>;
}
