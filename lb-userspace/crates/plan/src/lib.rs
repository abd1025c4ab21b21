//! From desired state, health states and agent reports to ordered writes of the data plane's tables. Pure: time is
//! passed in.
//!
//! [`target`] applies health, agents and drains to the desired state; [`plan`] compares the [`Target`] with the
//! [`Programmed`] state and gives the [`Step`]s. [`ring`] and [`transition`] decide which backend owns a slot and how
//! it changes hands.
//!
//! This crate must not know maps, sockets, files or clocks, nor its callers; it links neither BPF, HTTP servers nor a
//! command line.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some time"))]

mod apply;
mod build;
mod client_rings;
mod draft;
mod error;
mod flags;
pub mod groups;
mod guard;
mod ids;
mod plan_cache;
mod planner;
mod programmed;
mod quic;
mod replies;
pub mod ring;
mod step;
pub mod target;
#[cfg(test)]
mod tests;
pub mod transition;

use lb_model::{health, state};

pub use self::{
    error::PlanError,
    planner::{Planner, plan},
    programmed::{Endpoint, Programmed, ProgrammedBackend, ProgrammedQuic, ReplyTarget},
    step::{QuicStep, Step},
    target::content::{Target, TargetBackend, TargetQuic, TargetService},
};
