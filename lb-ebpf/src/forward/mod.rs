//! How a packet reaches its backend, one module a mode.

pub(crate) mod direct;
pub(crate) mod dnat;
pub(crate) mod nat;
pub(crate) mod tunnel;
