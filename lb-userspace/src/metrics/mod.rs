//! Metrics: counters of the daemon and of the maps, as text, and the HTTP endpoint that serves them.

mod agent;
mod backends;
mod daemon;
mod format;
mod hosts;
mod interfaces;
mod judgement;
mod maps;
mod render;
mod scrape;
mod server;
mod services;
mod shared;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    interfaces::is_drop,
    render::render,
    scrape::Scrape,
    server::{Endpoint, MAX_CONNECTIONS, ServeError, bind, limits, serve},
};

#[cfg(test)]
pub(crate) use self::tests::every_family;
