//! The `lb` daemon and command line.
//!
//! A change travels `config` -> `state` (desired, then effective) -> `plan` (pure diff) -> `datapath` (ordered map
//! writes). Health results enter as `health` events. `control` owns the state in between; `api`, `metrics` and `events`
//! show it, `cli` is the client, `app` starts and ends everything. ARCHITECTURE.md has the map.

#![allow(
    clippy::disallowed_methods,
    reason = "only modules that decide read no clock; they forbid it again"
)]
// They panic where the reader of a pipe has ended.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod app;
pub mod author;
pub mod cli;
pub mod config_file;
pub mod control;
mod descriptors;
pub mod discovery;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod metrics;
pub mod page;
pub mod parts;
#[cfg(test)]
mod reference;
pub mod serve;
pub mod state;
pub mod version;

pub use lb_datapath as datapath;
use lb_health_core::clock;
pub use lb_model::{chain, config, duration, health, number};
pub use lb_plan::{self as plan, ring, transition};
