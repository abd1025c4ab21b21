//! What the operator wants: names, the keys of the configuration, the desired state, its checks and its differences.
//!
//! A file, a command or a request becomes a [`config::Config`] or a [`state::desired::Desired`]; nothing behind that parses
//! text. [`health`] gives the library of checks the names of services and backends.
//!
//! This crate must not know rings, targets, maps, sockets or who asks: it does no I/O but to read a configuration that it is
//! handed as text, and links neither BPF, HTTP servers nor a command line.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some time"))]

pub mod chain;
pub mod config;
pub mod health;
pub mod state;
