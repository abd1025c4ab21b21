//! The CPUs of this machine.

use aya::util::nr_cpus;

use super::error::DatapathError;

/// Number of possible CPUs: how many values a per-CPU map has for each key.
pub(super) fn cpus() -> Result<usize, DatapathError> {
    nr_cpus().map_err(|(path, source)| DatapathError::Io {
        what: format!("cannot read {path}"),
        source,
    })
}
