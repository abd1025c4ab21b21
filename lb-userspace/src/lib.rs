//! The `lb` daemon and command line.
//!
//! A change travels `config` -> `state` (desired, then effective) -> `plan` (pure diff) -> `datapath` (ordered map
//! writes). Health results enter as `health` events. ARCHITECTURE.md has the map.

pub mod config;
pub mod datapath;
pub mod health;
pub mod plan;
pub mod ring;
pub mod state;
