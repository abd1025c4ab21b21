//! The desired state: its parts, their constraints, and the difference of two states.

pub mod backend;
pub mod change;
pub mod check;
pub mod clients;
pub mod desired;
pub mod discovered;
pub mod endpoints;
pub mod guard;
pub mod hosts;
pub mod names;
pub mod ports;
pub mod primes;
pub mod quic;
pub mod removals;
pub mod secrets;
pub mod service;
pub mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod words;
pub mod xdp_mode;
