//! How a packet reaches its backend: what each mode writes.

pub(crate) mod direct;
pub(crate) mod quote;
pub(crate) mod rewrite;
pub(crate) mod tunnel;
