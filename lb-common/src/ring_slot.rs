//! Slots of a ring: the backend that a hash selects, the slot's previous owner, and their effect on a packet. A slot is
//! one word that encodes its phase, so a packet needs one load and, in a stable slot, nothing else:
//!
//! | word | [`Phase`] | meaning |
//! |---|---|---|
//! | `current == previous`, not none | stable | all flows are `current`'s: no flow look-up, no state |
//! | `previous` another backend | transition | flows older than the change are `previous`'s, and are being recorded |
//! | `previous` none | pinned | flows of others are all recorded; unknown ones are `current`'s |
//!
//! `current` may be none, if no backend takes new flows; recorded flows and flows of `previous` continue. A slot of two
//! nones counts as pinned for that reason. The daemon keeps how long a slot has been in its phase.

use crate::{backend::BackendId, plain_data};

/// One slot, in the format described in the module.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingSlot {
    /// Takes new flows.
    pub current: BackendId,
    /// Takes flows older than the last change of this slot, while they may still exist.
    pub previous: BackendId,
}

/// The phase of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// No look-up.
    Stable,
    /// A look-up; unknown flows are recorded.
    Transition,
    /// A look-up; unknown flows belong to `current`.
    Pinned,
}

/// The decision of a slot without a flow look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The packet's backend, never none, without a record.
    Owner(BackendId),
    /// The flow decides: look it up, then ask [`RingSlot::decide`].
    LookUp,
}

/// The state of a flow in the flow tables. Only records of living backends count: a record with a dead backend, or an
/// old generation, counts as none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Recorded, and the client has shown more than one packet.
    Proven(BackendId),
    /// Recorded at its first packet.
    Unproven(BackendId),
    /// Not recorded.
    Unknown,
}

/// The write after a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// Nothing.
    Nothing,
    /// The time, in the record that was found.
    Refresh,
    /// The flow as proven.
    Proven,
    /// The flow as a new one, from its first packet.
    Opening,
    /// The flow as an old one, from its first packet since the change.
    Seen,
}

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Its backend; none where no backend takes new flows.
    pub backend: BackendId,
    /// The write.
    pub record: Record,
}

impl RingSlot {
    /// The slot as a word, for calls that take no structures.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        ((self.previous.0 as u32) << 16) | self.current.0 as u32
    }

    /// The slot of [`Self::to_word`].
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_le_bytes();
        Self {
            current: BackendId(u16::from_le_bytes([a, b])),
            previous: BackendId(u16::from_le_bytes([c, d])),
        }
    }

    /// A slot that belongs to one backend alone.
    #[inline(always)]
    pub const fn stable(backend: BackendId) -> Self {
        Self {
            current: backend,
            previous: backend,
        }
    }

    /// A slot whose flows of other owners are all recorded.
    #[inline(always)]
    pub const fn pinned(current: BackendId) -> Self {
        Self {
            current,
            previous: BackendId::NONE,
        }
    }

    /// The slot's phase.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        if self.previous.0 == BackendId::NONE.0 {
            Phase::Pinned
        } else if self.previous.0 == self.current.0 {
            Phase::Stable
        } else {
            Phase::Transition
        }
    }

    /// The first question of every packet.
    #[inline(always)]
    pub const fn pick(self) -> Pick {
        match self.phase() {
            Phase::Stable => Pick::Owner(self.current),
            Phase::Transition | Phase::Pinned => Pick::LookUp,
        }
    }

    /// The decision with a flow look-up, after [`Pick::LookUp`]. `opens`: the packet is a TCP SYN without ACK; never
    /// set for a protocol without a handshake.
    ///
    /// In transition an unknown flow is new if its packet opens it, else it may be older than the change. Either way
    /// the choice is recorded, so that after the window only `current`'s own flows are unknown. A pinned slot's own
    /// flows need no record, so theirs are left to the sweeper.
    #[inline(always)]
    pub const fn decide(self, known: Known, opens: bool) -> Decision {
        let pinned = matches!(self.phase(), Phase::Pinned);
        let (backend, record) = match known {
            Known::Proven(backend) | Known::Unproven(backend) if pinned && backend.0 == self.current.0 => {
                (backend, Record::Nothing)
            }
            Known::Proven(backend) => (backend, Record::Refresh),
            // A repeated SYN proves nothing: a flood can send it.
            Known::Unproven(backend) if opens => (backend, Record::Refresh),
            Known::Unproven(backend) => (backend, Record::Proven),
            Known::Unknown => match self.phase() {
                Phase::Transition if !opens => (self.previous, Record::Seen),
                Phase::Transition if self.current.0 != BackendId::NONE.0 => (self.current, Record::Opening),
                Phase::Transition | Phase::Pinned | Phase::Stable => (self.current, Record::Nothing),
            },
        };
        Decision { backend, record }
    }

    /// Like [`Self::decide`], but records every flow, also flows that the slot would send to the same backend.
    #[inline(always)]
    pub const fn decide_recorded(self, known: Known, opens: bool) -> Decision {
        let (backend, record) = match known {
            Known::Proven(backend) => (backend, Record::Refresh),
            Known::Unproven(backend) if opens => (backend, Record::Refresh),
            Known::Unproven(backend) => (backend, Record::Proven),
            Known::Unknown if opens => (self.current, Record::Opening),
            Known::Unknown if matches!(self.phase(), Phase::Transition) => (self.previous, Record::Seen),
            Known::Unknown => (self.current, Record::Seen),
        };
        Decision { backend, record }
    }

    /// The slot after a rebuild of the ring gave it to `owner` (none: no backend takes new flows), which may be its
    /// present owner. The other arguments are whether the slot's own two backends still live.
    ///
    /// - A dead backend is never a slot's `previous`: its flows are lost.
    /// - In transition the slot keeps its `previous`: all flows of the owner in between are recorded, so an unknown
    ///   flow can only be older.
    /// - Back at its `previous`, the slot is pinned: flows of the owner in between are recorded, all others are its own.
    /// - A pinned slot takes its `current` as `previous`; flows of others stay recorded.
    #[inline(always)]
    pub const fn next(self, owner: BackendId, current_lives: bool, previous_lives: bool) -> Self {
        let stays = owner.0 == self.current.0;
        match self.phase() {
            Phase::Stable if stays => self,
            Phase::Stable if !current_lives => Self::stable(owner),
            Phase::Transition if previous_lives && owner.0 == self.previous.0 => Self::pinned(owner),
            Phase::Transition if previous_lives => Self {
                current: owner,
                previous: self.previous,
            },
            Phase::Stable | Phase::Transition | Phase::Pinned if stays || !current_lives => {
                Self::pinned(owner)
            }
            Phase::Stable | Phase::Transition | Phase::Pinned => Self {
                current: owner,
                previous: self.current,
            },
        }
    }
}

/// The slot of a flow's hash in a ring of `size` slots. Multiply and shift instead of a division (Lemire, "Fast
/// random integer generation in an interval", 2019); uniform to within `size / 2^32`.
#[inline(always)]
pub const fn index(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

const _: () = assert!(
    size_of::<RingSlot>() == 4 && align_of::<RingSlot>() == 4,
    "read in one load"
);

plain_data!(RingSlot);

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: BackendId = BackendId::NONE;
    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const C: BackendId = BackendId(3);

    const fn slot(current: BackendId, previous: BackendId) -> RingSlot {
        RingSlot { current, previous }
    }

    #[test]
    fn index_stays_inside_the_ring_and_reaches_both_ends() {
        for size in [1, 251, 65_537, 131_071] {
            assert_eq!(index(0, size), 0);
            assert_eq!(index(u32::MAX, size), size - 1);
        }
    }

    #[test]
    fn only_a_stable_slot_skips_the_look_up() {
        for (word, phase, pick) in [
            (slot(A, A), Phase::Stable, Pick::Owner(A)),
            (slot(B, A), Phase::Transition, Pick::LookUp),
            (slot(NONE, A), Phase::Transition, Pick::LookUp),
            (slot(A, NONE), Phase::Pinned, Pick::LookUp),
            (slot(NONE, NONE), Phase::Pinned, Pick::LookUp),
        ] {
            assert_eq!((word.phase(), word.pick()), (phase, pick), "{word:?}");
        }
        assert_eq!(
            RingSlot::default(),
            RingSlot::pinned(NONE),
            "an unset slot selects no backend"
        );
    }

    #[test]
    fn flow_follows_its_record_or_else_its_age() {
        use Known::{Proven, Unknown, Unproven};
        for (word, known, opens, backend, record) in [
            (slot(B, A), Proven(C), false, C, Record::Refresh),
            (slot(B, A), Proven(C), true, C, Record::Refresh),
            (slot(B, A), Unproven(C), false, C, Record::Proven),
            (slot(B, A), Unproven(C), true, C, Record::Refresh),
            (slot(B, A), Unknown, true, B, Record::Opening),
            (slot(B, A), Unknown, false, A, Record::Seen),
            (slot(NONE, A), Unknown, true, NONE, Record::Nothing),
            (slot(NONE, A), Unknown, false, A, Record::Seen),
            (slot(B, NONE), Proven(B), false, B, Record::Nothing),
            (slot(B, NONE), Unproven(B), false, B, Record::Nothing),
            (slot(B, NONE), Proven(C), false, C, Record::Refresh),
            (slot(B, NONE), Unproven(C), false, C, Record::Proven),
            (slot(B, NONE), Unknown, true, B, Record::Nothing),
            (slot(B, NONE), Unknown, false, B, Record::Nothing),
            (slot(NONE, NONE), Proven(C), false, C, Record::Refresh),
            (slot(NONE, NONE), Unknown, false, NONE, Record::Nothing),
        ] {
            let decision = word.decide(known, opens);
            assert_eq!(
                decision,
                Decision { backend, record },
                "{word:?} {known:?} {opens}"
            );
        }
    }

    #[test]
    fn where_every_flow_is_recorded_no_slot_is_an_exception() {
        use Known::{Proven, Unknown, Unproven};
        for (word, known, opens, backend, record) in [
            (slot(A, A), Unknown, true, A, Record::Opening),
            (slot(A, A), Unknown, false, A, Record::Seen),
            (slot(A, A), Unproven(C), false, C, Record::Proven),
            (slot(A, A), Proven(A), false, A, Record::Refresh),
            (slot(A, NONE), Proven(A), false, A, Record::Refresh),
            (slot(B, A), Unknown, true, B, Record::Opening),
            (slot(B, A), Unknown, false, A, Record::Seen),
            (slot(B, A), Unproven(C), true, C, Record::Refresh),
        ] {
            assert_eq!(
                word.decide_recorded(known, opens),
                Decision { backend, record },
                "{word:?} {known:?} {opens}"
            );
        }
    }

    #[test]
    fn a_slot_survives_the_way_through_its_word() {
        for slot in [slot(A, B), slot(NONE, C), slot(BackendId(u16::MAX), NONE)] {
            assert_eq!(RingSlot::from_word(slot.to_word()), slot);
        }
    }

    #[test]
    fn a_slot_that_changes_never_forgets_a_flow_of_a_living_backend() {
        // The slot, its new owner, whether its current and previous live, and the new slot.
        for (word, owner, current_lives, previous_lives, becomes) in [
            (slot(A, A), A, true, true, slot(A, A)),
            (slot(A, A), B, true, true, slot(B, A)),
            (slot(A, A), B, false, false, slot(B, B)),
            (slot(A, A), NONE, true, true, slot(NONE, A)),
            (slot(A, A), NONE, false, false, slot(NONE, NONE)),
            (slot(B, A), B, true, true, slot(B, A)),
            (slot(B, A), B, true, false, slot(B, NONE)),
            (slot(B, A), C, true, true, slot(C, A)),
            (slot(B, A), C, false, true, slot(C, A)),
            (slot(B, A), C, true, false, slot(C, B)),
            (slot(B, A), C, false, false, slot(C, NONE)),
            (slot(B, A), A, true, true, slot(A, NONE)),
            (slot(B, A), NONE, true, true, slot(NONE, A)),
            (slot(NONE, A), A, false, true, slot(A, NONE)),
            (slot(NONE, A), B, false, false, slot(B, NONE)),
            (slot(B, NONE), B, true, false, slot(B, NONE)),
            (slot(B, NONE), C, true, false, slot(C, B)),
            (slot(B, NONE), C, false, false, slot(C, NONE)),
            (slot(NONE, NONE), C, false, false, slot(C, NONE)),
            (slot(NONE, NONE), NONE, false, false, slot(NONE, NONE)),
        ] {
            let next = word.next(owner, current_lives, previous_lives);
            assert_eq!(
                next, becomes,
                "{word:?} to {owner:?}, {current_lives} {previous_lives}"
            );
            assert_eq!(next.current, owner);
        }
    }
}
