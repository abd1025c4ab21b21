//! Limits of clients.

use std::time::Duration;

/// Limits of the clients of one listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Time without a request.
    pub idle: Duration,
    /// Bytes of the head of a request; from 8,192.
    pub head_bytes: usize,
    /// Time from the first byte of a request to the end of its head.
    pub head: Duration,
    /// Time for the body of a request.
    pub body: Duration,
    /// Time in which the client takes no byte of an answer.
    pub stall: Duration,
    /// Time for a whole answer; `None` for endless answers.
    pub answer: Option<Duration>,
    /// File descriptors held back for `accept` when the process has no more.
    pub reserve: usize,
}

/// Marks an answer, as an extension of it, that goes on for as long as the client reads: [`Limits::answer`] does not end it, while
/// [`Limits::stall`] does.
#[derive(Clone, Copy, Debug)]
pub struct Endless;
