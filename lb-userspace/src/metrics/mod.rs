//! Metrics: what the daemon counts itself, what the maps count, and the HTTP endpoint that shows both.

mod agent;
mod hosts;
mod judgement;
mod ledger;
mod observe;
mod own;
mod render;
mod server;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    observe::{Observation, Observer, ReadCounters, Reading},
    own::ApplyMetrics,
    render::{is_drop, render},
    server::{Endpoint, MAX_CONNECTIONS, ServeError, bind, limits, serve},
};

#[cfg(test)]
pub(crate) use self::tests::every_family;
