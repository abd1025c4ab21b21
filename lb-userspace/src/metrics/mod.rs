//! Metrics: counters of the daemon and of the maps, as text, and the HTTP endpoint that serves them.

mod agent;
mod hosts;
mod judgement;
mod render;
mod server;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    render::{is_drop, render},
    server::{Endpoint, MAX_CONNECTIONS, ServeError, bind, limits, serve},
};

#[cfg(test)]
pub(crate) use self::tests::every_family;
