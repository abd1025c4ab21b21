//! Where the desired state is kept: a trait, and a file that survives a kill at any point.

mod error;
mod file;
mod format;

pub use self::{error::StoreError, file::FileStore};

use super::desired::Desired;

/// Keeps the desired state.
pub trait Store {
    /// What was saved last; `None` if nothing ever was.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written. Nothing is overwritten then.
    fn load(&self) -> Result<Option<Desired>, StoreError>;

    /// Saves a desired state so that it is there after a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written. What was saved before stays.
    fn save(&self, desired: &Desired) -> Result<(), StoreError>;
}
