//! The operator's configuration: names, keys, the desired state, its constraints and its differences.
//!
//! A file, a command or a request becomes a [`config::Config`] or a [`state::desired::Desired`]; nothing behind that parses
//! text. [`health`] gives the library of checks the names of services and backends.
//!
//! This crate must not know rings, targets, maps, sockets or callers. It does no I/O: it gets a configuration as text, and links
//! neither BPF, HTTP servers nor a command line.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some time"))]

pub mod chain;
pub mod config;
pub mod duration;
pub mod health;
pub use lb_health_core::number;
pub mod state;
mod value_error;
