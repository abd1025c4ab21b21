//! One connection: in which phase it is, and how long it may stay there.

use std::sync::OnceLock;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{limits::Limits, metrics::Ended};
use crate::author::Peer;

/// The phase of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It waits for a request.
    Idle,
    /// The head of a request comes.
    Head,
    /// The request is being answered.
    Answer,
    /// An endless answer is being written.
    Stream,
    /// The body of a request is being read.
    Body,
    /// The last bytes of an answer are being written.
    Flush,
}

/// The phase, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) since: Instant,
    /// Since when the client has taken no byte that there is for it.
    pub(super) stalled: Option<Instant>,
}

impl State {
    /// When the phase has lasted too long, and the cause to count then; `None` without a limit.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, Ended)> {
        let phase = match self.phase {
            Phase::Idle => Some((limits.idle, Ended::Idle)),
            Phase::Head => Some((limits.head, Ended::SlowRequest)),
            Phase::Body => Some((limits.body, Ended::SlowRequest)),
            Phase::Stream => None,
            Phase::Answer | Phase::Flush => limits.answer.map(|limit| (limit, Ended::SlowReader)),
        };
        let phase = phase.map(|(limit, ended)| (self.since + limit, ended));
        let stall = self
            .stalled
            .map(|since| (since + limits.stall, Ended::SlowReader));
        phase.into_iter().chain(stall).min_by_key(|(at, _)| *at)
    }
}

/// A connection, as its bodies, its socket and the other connections see it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: watch::Sender<State>,
    pub(super) displaced: CancellationToken,
    /// Who is at the other end, if that is known.
    pub(super) peer: OnceLock<Peer>,
}

impl Connection {
    pub(super) fn new() -> Self {
        let state = State {
            phase: Phase::Idle,
            since: Instant::now(),
            stalled: None,
        };
        Self {
            state: watch::Sender::new(state),
            displaced: CancellationToken::new(),
            peer: OnceLock::new(),
        }
    }

    /// Since when it has waited for a request, or for the rest of a head; `None` while it is busy.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = *self.state.borrow();
        matches!(state.phase, Phase::Idle | Phase::Head).then_some(state.since)
    }

    /// Ends it.
    pub(super) fn displace(&self) {
        self.displaced.cancel();
    }

    /// Moves to `to` from one of the phases `from`; ignored in other phases.
    pub(super) fn go(&self, from: &[Phase], to: Phase) {
        self.state.send_if_modified(|state| {
            let goes = from.contains(&state.phase);
            if goes {
                // The time for an answer does not begin again with its last bytes.
                if to != Phase::Flush {
                    state.since = Instant::now();
                }
                state.phase = to;
            }
            goes
        });
    }

    pub(super) fn wrote(&self, pending: bool) {
        self.state.send_if_modified(|state| {
            let changes = pending != state.stalled.is_some();
            if changes {
                state.stalled = pending.then(Instant::now);
            }
            changes
        });
    }
}
