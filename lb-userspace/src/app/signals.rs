//! The signals the daemon heeds.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals the daemon heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// SIGTERM or SIGINT. Cancel-safe.
    pub(super) async fn end(&mut self) {
        while self.next().await != Wish::End {}
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}
