//! Parts of the datapath that fail while packets are forwarded: each is retried, and operators see it meanwhile.

use tokio::sync::mpsc;

/// Changes that may wait for their reader; a part that still fails reports again at its next attempt.
const QUEUE: usize = 256;

/// A part of the datapath whose failure does not stop forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatapathPart {
    /// The kernel's notices about interfaces that have the program.
    LinkNotices,
    /// Inspection of those interfaces.
    Links,
    /// The kernel's notices about links, addresses, neighbours and routes on the way to backends.
    RouteNotices,
    /// Look-ups of the next hops of backends.
    NextHops,
    /// The IP and link-layer addresses of this machine.
    OwnAddresses,
    /// The pins, by which the next daemon finds maps, links and flows.
    Pins,
    /// The whole program, which takes the place of the first one of a cold start.
    Program,
}

/// A failure or a recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartState {
    /// It fails, and is retried.
    Failed {
        /// The failure and its reason.
        message: String,
        /// The remedy.
        hint: String,
    },
    /// It works again; one sentence.
    Works(String),
}

/// A part that failed or recovered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartChange {
    /// The part.
    pub part: DatapathPart,
    /// Its failure or recovery.
    pub state: PartState,
}

/// Where tasks report failures of parts. Never blocks.
#[derive(Clone, Debug)]
pub(super) struct PartReporter(mpsc::Sender<PartChange>);

impl PartReporter {
    /// A reporter and its reader.
    pub(super) fn new() -> (Self, mpsc::Receiver<PartChange>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// `part` fails for this reason.
    pub(super) fn failed(&self, part: DatapathPart, message: String, hint: &str) {
        let hint = hint.to_owned();
        self.send(part, PartState::Failed { message, hint });
    }

    /// `part` works again.
    pub(super) fn works(&self, part: DatapathPart, message: &str) {
        self.send(part, PartState::Works(message.to_owned()));
    }

    fn send(&self, part: DatapathPart, state: PartState) {
        // Without a reader, as in the end, or with a full queue, the next attempt reports again.
        let _ = self.0.try_send(PartChange { part, state });
    }
}
