//! The checks: each decides from facts alone.

pub(super) mod addresses;
pub(super) mod certificates;
pub(super) mod interfaces;
pub(super) mod kernel;
pub(super) mod paths;
#[cfg(test)]
mod tests;
