//! The owner of the desired state. It takes changes and health results, computes the target, has it saved and programmed,
//! and publishes the outcome.
//!
//! A change is validated, saved, programmed and only then answered. If programming fails, the saved state is restored and
//! the caller gets the reason. A health result that cannot be programmed is retried.

#[cfg(test)]
mod agent_tests;
#[cfg(test)]
mod backup_tests;
mod broken;
pub mod certificates;
pub mod change;
#[cfg(test)]
mod crash_tests;
pub mod error;
mod faults;
mod handle;
mod inherited;
mod ledger;
mod metrics;
mod observe;
pub mod own_traffic;
pub mod passive;
pub mod ports;
pub mod pressure;
mod reach;
#[cfg(test)]
mod reach_tests;
pub mod removed;
#[cfg(test)]
mod slow_start_tests;
#[cfg(test)]
mod start_tests;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verdicts;
mod view;

pub use self::{
    broken::{Broken, Cause, broken, cause, forwards},
    change::Change,
    error::ControlError,
    faults::{Fault, Faults, FaultsByService},
    handle::{ControlHandle, Moved, Outcome, REQUEST_DEPTH},
    inherited::{Inherited, inherit, still_needed, stored_agent_updates},
    metrics::{ApplyMetrics, ReloadMetrics},
    observe::{Observation, Observer, ReadCounters, Reading},
    task::{ControlTask, Parts, report::report_replaced},
    view::{ControlView, RefusedFile},
};
