//! What the operator wants (desired state) and what follows from it and from health (effective state).

pub mod agents;
pub mod backend;
pub mod backups;
pub mod change;
pub mod check;
pub mod desired;
pub mod diff;
pub mod down_grace;
pub mod effective;
pub mod endpoints;
pub mod guard;
pub mod moves;
pub mod names;
pub mod ports;
pub mod primes;
pub mod quic;
pub mod removal;
pub mod ring_sizes;
pub mod service;
pub mod shared;
pub mod slow_start;
pub mod store;
pub mod stored;
#[cfg(test)]
pub(crate) mod testing;
pub mod words;
pub mod xdp_mode;
