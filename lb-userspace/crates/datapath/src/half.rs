//! The two directions of a NAT flow, as the sweeper and readers of flows judge them.

use lb_common::flow::{FIN, NatFlow, RST};

/// Seconds for which packets of one side may go on after a RST of the other: they were under way. What comes later shows that
/// the RST was not believed.
const UNDER_WAY_SECS: u32 = 2;

/// The state of one direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Half {
    pub(super) state: u8,
    pub(super) last_seen: u32,
}

impl Half {
    /// The same without a RST that the other side has not believed.
    pub(super) const fn as_believed_by(self, other: Self) -> Self {
        if other.last_seen > self.last_seen.saturating_add(UNDER_WAY_SECS) {
            Self {
                state: self.state & !RST,
                ..self
            }
        } else {
            self
        }
    }

    /// Whether this direction has sent a FIN.
    pub(super) const fn has_ended(self) -> bool {
        self.state & FIN != 0
    }

    /// The same before its first packet.
    pub(super) const fn unproven(self) -> Self {
        Self { state: 0, ..self }
    }
}

/// Whether a TCP flow counts as over: both ends have sent a FIN, or one has sent a RST that the other has believed.
pub(super) const fn is_over(forward: Half, reply: Half) -> bool {
    (forward.state | reply.state) & RST != 0 || (forward.has_ended() && reply.has_ended())
}

/// The direction of an entry.
pub(super) const fn half<A>(flow: &NatFlow<A>) -> Half {
    Half {
        state: flow.state,
        last_seen: flow.last_seen,
    }
}
