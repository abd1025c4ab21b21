//! The daemon's log: changes of state at INFO, to stderr.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::EnvFilter;

/// What is logged: filter directives as of `tracing_subscriber`, for example `debug`.
const FILTER: &str = "LB_LOG";

/// Starts logging. Called once; a second call changes nothing.
pub(super) fn start() {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var(FILTER);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_target(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color);
    // The journal has its own clock.
    let _ = if env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}
