//! Which backend takes a new flow.

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE, IPV6},
    flow::{NatFlow, Tuple},
    reason::Reason,
    ring_slot::{self, Pick, RingSlot},
    service::{BY_SOURCE, FORWARDS, IN_TURN, Mode, OnEmpty, Service},
};

use crate::{family::Family, follow, maps};

/// Stands for a packet of a service without a backend that is to be rejected, until [`crate::reply`] has done so. Nothing
/// counts a drop for it.
pub(crate) const REJECT: Reason = Reason::RejectedReset;

/// A backend that may be sent to.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// Its number.
    pub(crate) id: BackendId,
    /// Its record.
    pub(crate) backend: &'static Backend,
}

/// The slot that a packet's flow leads to; one that picks nobody while the service has no ring.
#[inline(always)]
pub(crate) fn slot<A: Family>(service: &Service, tuple: &Tuple<A>, hash: u32) -> Result<RingSlot, Reason> {
    if service.ring_size == 0 {
        return Ok(RingSlot::pinned(BackendId::NONE));
    }
    let hash = if service.has(BY_SOURCE) {
        A::source_hash(tuple)
    } else {
        hash
    };
    maps::ring_slot(service.ring, ring_slot::index(hash, service.ring_size))
}

/// The slot for a new flow: the next one, where the service's flows take turns, else `slot`.
#[inline(always)]
pub(crate) fn in_turn(service: &Service, slot: RingSlot) -> RingSlot {
    if !service.has(IN_TURN) || service.ring_size == 0 {
        return slot;
    }
    let Ok(turn) = maps::service_turn(service.id) else {
        return slot;
    };
    #[expect(clippy::cast_possible_truncation, reason = "less than the ring's size")]
    let index = (turn % u64::from(service.ring_size)) as u32;
    maps::ring_slot(service.ring, index).unwrap_or(slot)
}

/// The backend for a packet that mode `nat` does not know. `opens`: it is a TCP SYN without ACK. `named`: the
/// backend that it names itself, if any. Nothing is recorded.
#[inline(always)]
pub(crate) fn pick<A: Family>(
    service: &Service,
    tuple: &Tuple<A>,
    opens: bool,
    named: BackendId,
) -> Result<Choice, Reason> {
    if named != BackendId::NONE {
        return choice(service, named);
    }
    let slot = in_turn(service, slot(service, tuple, A::hash(tuple))?);
    let id = match slot.pick() {
        Pick::LookUp if service.has(FORWARDS) => follow::asked_in::<A>(slot, opens),
        Pick::LookUp | Pick::Owner(_) => slot.current,
    };
    choice(service, id)
}

/// A backend of the service that packets may be sent to.
#[inline(always)]
pub(crate) fn choice(service: &Service, id: BackendId) -> Result<Choice, Reason> {
    if id == BackendId::NONE {
        return Err(if service.on_empty == OnEmpty::Reject as u8 {
            REJECT
        } else {
            Reason::NoBackend
        });
    }
    let backend = maps::backend(id)?;
    if !backend.has(IN_USE) || backend.service != service.id {
        return Err(Reason::BackendMissing);
    }
    // Between the moment a backend is declared dead and the ring that leaves it out.
    if !backend.has(ALIVE) {
        return Err(Reason::NoBackend);
    }
    Ok(Choice { id, backend })
}

/// Whether a flow of this family can be translated to the backend.
#[inline(always)]
pub(crate) fn translates<A: Family>(backend: &Backend) -> bool {
    backend.mode == Mode::Nat as u8 && backend.has(IPV6) == A::IS_V6
}

/// The backend that owns a recorded flow; `None` if it is dead, or its number is in other hands.
#[inline(always)]
pub(crate) fn living_owner<A>(flow: &NatFlow<A>) -> Option<&'static Backend> {
    let backend = maps::backend(flow.backend).ok()?;
    (backend.has(IN_USE | ALIVE) && backend.generation == flow.generation).then_some(backend)
}
