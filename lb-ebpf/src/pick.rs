//! Which backend takes a new flow.

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE, IPV6},
    flow::NatFlow,
    reason::Reason,
    ring_slot,
    service::{Mode, Service},
};

use crate::{
    family::Family,
    maps::{self, Scratch},
};

/// A backend that may be sent to.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// Its number.
    pub(crate) id: BackendId,
    /// Its record.
    pub(crate) backend: &'static Backend,
}

/// The backend for a new flow: the owner of the slot that the flow's hash leads to.
#[inline(always)]
pub(crate) fn pick(service: &Service, hash: u32) -> Result<Choice, Reason> {
    if service.ring_size == 0 {
        return Err(Reason::NoBackend);
    }
    let index = ring_slot::index(hash, service.ring_size);
    let id = maps::ring_slot(service.ring, index)?.current;
    if id == BackendId::NONE {
        return Err(Reason::NoBackend);
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

/// Whether a new flow would go to a backend that it is translated to.
#[inline(always)]
pub(crate) fn translated(service: &Service, hash: u32) -> Result<bool, Reason> {
    Ok(pick(service, hash)?.backend.mode == Mode::Nat as u8)
}

/// Whether a flow of this family can be translated to the backend.
#[inline(always)]
pub(crate) fn translates<A: Family>(backend: &Backend) -> bool {
    backend.mode == Mode::Nat as u8 && backend.has(IPV6) == A::IS_V6
}

/// Whether the known flow's backend is the one that a new flow of its tuple would get.
// Not inlined: a rare case.
#[inline(never)]
pub(crate) fn is_first_choice<A: Family>(service: &Service, room: &Scratch<A>) -> bool {
    pick(service, A::hash(&room.tuple)).is_ok_and(|choice| choice.id == room.known.backend)
}

/// The backend that owns a recorded flow; `None` if it is dead, or its number is in other hands.
#[inline(always)]
pub(crate) fn living_owner<A>(flow: &NatFlow<A>) -> Option<&'static Backend> {
    let backend = maps::backend(flow.backend).ok()?;
    (backend.has(IN_USE | ALIVE) && backend.generation == flow.generation).then_some(backend)
}
