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
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::End,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    /// SIGTERM or SIGINT. Cancel-safe.
    pub(super) async fn end(&mut self) {
        while self.next().await != SignalAction::End {}
    }
}

/// The effect of a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}
