//! The trait of stores.

use std::{io, path::PathBuf};

use super::{error::StoreError, history::KeptState, journal::Record};
use crate::state::{desired::Revision, stored::Stored};

/// Something about the store that an operator should look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreProblem {
    /// The problem.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

/// Keeps the state.
pub trait Store {
    /// The state saved last; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged. Nothing is overwritten then.
    fn load(&self) -> Result<Option<Stored>, StoreError>;

    /// Saves a state so that it survives a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written. The state saved before stays.
    fn save(&self, stored: &Stored) -> Result<(), StoreError>;

    /// Renames a file that [`Self::load`] refuses, and keeps it. Returns its new path.
    ///
    /// # Errors
    /// It cannot be renamed. It stays in its place.
    fn set_aside(&self) -> Result<PathBuf, StoreError>;

    /// The records stored beside the desired state, the latest of each subject. Unreadable ones are skipped.
    fn recall(&self) -> Vec<Record>;

    /// Stores records before they take effect. They outlive the process, and possibly a crash of the machine. If they
    /// cannot be written, [`Self::problems`] reports it.
    fn remember(&self, records: &[Record]);

    /// Forgets all records except `records`.
    fn forget_all_but(&self, records: &[Record]);

    /// Why the state in force is not saved; `None` if it is.
    fn unsaved(&self) -> Option<StoreProblem>;

    /// The states that can be restored, the latest first.
    ///
    /// # Errors
    /// They cannot be listed.
    fn history(&self) -> io::Result<Vec<KeptState>> {
        Ok(Vec::new())
    }

    /// The state of an earlier revision; `None` if it is not kept.
    ///
    /// # Errors
    /// As [`Self::load`].
    fn past(&self, _revision: Revision) -> Result<Option<Stored>, StoreError> {
        Ok(None)
    }

    /// Problems of the store.
    fn problems(&self) -> Vec<StoreProblem>;
}
