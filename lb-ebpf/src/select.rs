//! Which backend a packet goes to.

use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE},
    flow::{NatFlow, Tuple},
    hash::{self, HashBy},
    reason::Reason,
    ring_slot::{self, Pick, RingSlot},
    service::{FORWARDS, Service},
};

use crate::{family::Family, follow, maps::tables, next_stage::NextStage, order, scratch::PacketTuple};

/// A backend that may be sent to.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// Its number.
    pub(crate) id: BackendId,
    /// Its record.
    pub(crate) backend: &'static Backend,
}

/// The slot that a packet's flow leads to; one that names no backend while the service has no ring.
#[inline(always)]
pub(crate) fn slot<A: Family>(service: &Service, tuple: &Tuple<A>, hash: u32) -> Result<RingSlot, Reason> {
    if service.ring_size == 0 {
        return Ok(RingSlot::pinned(BackendId::NONE));
    }
    let hash = match HashBy::of(service) {
        HashBy::Tuple => hash,
        HashBy::Source => A::source_hash(tuple),
        HashBy::Port => hash::port(tuple.dst_port),
    };
    tables::ring_slot(service.ring, ring_slot::index(hash, service.ring_size))
}

/// The backend for a packet that mode `nat` does not know. `is_syn`: it is a TCP SYN without ACK. `cid_backend`: the
/// backend that its connection id names, if any. Nothing is recorded.
#[inline(always)]
pub(crate) fn select_backend<A: Family>(
    service: &Service,
    tuple: &mut PacketTuple<A>,
    is_syn: bool,
    cid_backend: BackendId,
) -> Result<Choice, NextStage> {
    if cid_backend != BackendId::NONE {
        return usable(service, cid_backend);
    }
    let slot = follow::in_turn(service, slot(service, tuple, A::hash(tuple))?);
    let id = match slot.pick() {
        Pick::LookUp if service.has(FORWARDS) => follow::recorded_owner(tuple, slot, is_syn),
        Pick::LookUp | Pick::Owner(_) => slot.current,
    };
    usable(service, id)
}

/// A backend of the service that packets may be sent to.
#[inline(always)]
pub(crate) fn usable(service: &Service, id: BackendId) -> Result<Choice, NextStage> {
    if id == BackendId::NONE {
        return Err(order::without_backend(service));
    }
    let backend = tables::backend(id)?;
    order::is_usable(service, backend)?;
    Ok(Choice { id, backend })
}

/// Whether a flow of this family can be translated to the backend.
#[inline(always)]
pub(crate) fn translates<A: Family>(backend: &Backend) -> bool {
    order::translates(backend, A::IS_V6)
}

/// The backend that owns a recorded flow; `None` if it is dead, or its number is in other hands.
#[inline(always)]
pub(crate) fn living_owner<A>(flow: &NatFlow<A>) -> Option<&'static Backend> {
    let backend = tables::backend(flow.backend).ok()?;
    (backend.has(IN_USE | ALIVE) && backend.generation == flow.generation).then_some(backend)
}
