//! The backend that a QUIC connection id names, for services that ask for it.
//!
//! A step of its cipher is global to the verifier (see [`crate::global`]).

use lb_common::{
    backend::{ALIVE, BackendId, IN_USE},
    quic::{self, Config, ConfigKey, Halves},
    service::ServiceId,
};
use network_types::udp::UdpHdr;

use crate::{
    family::Family,
    maps::{quic as connection_ids, tables},
    next_stage::NextStage,
    order,
    packet::Packet,
    scratch::Scratch,
};
use lb_wire::Frame as _;

/// Takes a step with the connection id in this CPU's scratch.
///
/// # Safety
///
/// `config` is null or points to a whole configuration, which the verifier sees to, and no reference to the halves is in use.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn quic_step(config: *const Config, number: u32) -> u32 {
    // SAFETY: required of the caller.
    if let (Some(config), Some(halves)) = (unsafe { config.as_ref() }, unsafe { connection_ids::halves() }) {
        config.step(halves, number);
    }
    0
}

/// Leaves in the scratch the living backend that the connection id of a packet names; [`BackendId::NONE`] where none is named, so
/// that the tuple decides: a client's own id, one of another configuration, or of a server that is not there.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let Scratch {
        ip,
        service,
        cid_backend,
        ..
    } = scratch;
    *cid_backend = find(packet, service.id, ip.payload, ip.end).unwrap_or(BackendId::NONE);
    order::after_quic(service)
}

/// Whether a packet names another backend than the one its flow is with: it belongs to another connection, or a client
/// that has moved brings its own to a tuple that was another's.
#[inline(always)]
pub(crate) fn cid_overrides_flow<A>(scratch: &Scratch<A>) -> bool {
    scratch.cid_backend != BackendId::NONE && scratch.cid_backend != scratch.flow.backend
}

#[inline(always)]
fn find(packet: &Packet, service: ServiceId, udp: usize, end: usize) -> Option<BackendId> {
    // Packets that are shorter than what is read here are none of QUIC's: its shortest has 16 bytes more than the id and
    // a byte on either side of it (RFC 9001 section 5.4.2).
    let quic = udp + UdpHdr::LEN;
    let (at, length) = quic::id_at(packet.read(quic)?);
    let id = quic + at;
    let [first] = packet.read(id)?;
    let config = connection_ids::config(ConfigKey::of(service, first)?)?;
    let block = id + 1;
    if length < config.id_length() || id + config.id_length() > end {
        return None;
    }
    let halves = Halves([packet.words(block)?, packet.words(block + config.right_at())?]);
    let key = if config.steps().is_empty() {
        config.server(service, &halves)
    } else {
        // Where the steps find them.
        // SAFETY: only until the end of the statement.
        unsafe { *connection_ids::halves()? = halves };
        for number in config.steps() {
            // SAFETY: a whole configuration; no reference to the halves is in use.
            unsafe { quic_step(config, *number) };
        }
        // SAFETY: no other reference to them is in use.
        config.server(service, unsafe { connection_ids::halves() }?)
    };
    let id = connection_ids::server(&key)?.backend;
    let backend = tables::backend(id).ok()?;
    (backend.has(IN_USE | ALIVE) && backend.service == service).then_some(id)
}
