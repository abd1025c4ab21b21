//! The store of the state: a trait, a directory that survives a kill at any point, and a wrapper for starts where that
//! directory cannot be used.

mod error;
mod file;
mod format;
mod history;
mod journal;
mod keep;
mod lenient;
mod names;

pub use self::{
    error::StoreError,
    file::FileStore,
    history::KeptState,
    journal::{Record, Subject},
    keep::{Store, StoreProblem},
    lenient::LenientStore,
};
