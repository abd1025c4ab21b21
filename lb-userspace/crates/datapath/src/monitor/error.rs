//! Why packets cannot be recorded.

use std::io;

use lb_common::monitor::FILTER_BACKENDS;

use crate::error::DatapathError;

/// Why packets cannot be recorded.
#[derive(thiserror::Error, Debug)]
pub enum MonitorError {
    /// There is one already.
    #[error("another monitor runs, and there can be one at a time")]
    Busy,
    /// No packet comes to the program.
    #[error("the program runs on no interface")]
    NotAttached,
    /// The program of services lacks what the filter names.
    #[error("{0} is not programmed, so no packet belongs to it")]
    NotProgrammed(String),
    /// More backends than a filter holds.
    #[error("{0} backends have that name, and a filter holds {FILTER_BACKENDS}")]
    ManyBackends(usize),
    /// Records, or their filter, cannot be read or written any more.
    #[error("records cannot be read")]
    Records(#[source] io::Error),
    /// The program, or its maps, cannot be brought into the kernel.
    #[error("the monitored program cannot run")]
    Program(#[source] DatapathError),
    /// The same, where only words are left.
    #[error("the monitored program cannot run: {0}")]
    Refused(String),
}
