//! How a packet reaches its backend, one module a mode.

pub(crate) mod nat;
