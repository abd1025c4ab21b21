//! The backend that a QUIC connection id names, for services that ask for it.
//!
//! The functions that are not generic are what the verifier calls global, as in [`crate::open`].

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    backend::{ALIVE, BackendId, IN_USE},
    quic::{self, Config, ConfigKey, Halves},
    service::ServiceId,
};
use network_types::udp::UdpHdr;

use crate::{
    maps::{self, Scratch},
    packet::Packet,
    parse::Ip,
};

/// Takes a step with the connection id in this CPU's room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn quic_step(config: *const Config, number: u32) -> u32 {
    // SAFETY: the verifier sees to it that callers pass a whole configuration, or nothing.
    if let (Some(config), Some(halves)) = (unsafe { config.as_ref() }, maps::quic::halves()) {
        config.step(halves, number);
    }
    0
}

/// [`owner`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn quic_owner(ctx: *mut xdp_md, service: u16, udp: u32, end: u32) -> u32 {
    let packet = Packet::linear(ctx);
    find(&packet, ServiceId(service), udp as usize, end as usize).map_or(0, |id| u32::from(id.0))
}

/// The living backend that the connection id of a packet names; [`BackendId::NONE`] where none is named, so that the
/// tuple decides: a client's own id, one of another configuration, or of a server that is not there.
#[inline(always)]
pub(crate) fn owner(packet: &Packet, ip: &Ip, service: ServiceId) -> BackendId {
    #[expect(clippy::cast_possible_truncation, reason = "offsets into a packet")]
    let number = quic_owner(packet.context(), service.0, ip.payload as u32, ip.end as u32);
    // The verifier knows nothing about what a global function returns, so the compiler must not either.
    BackendId(u16::try_from(black_box(number)).unwrap_or_default())
}

/// Whether a packet names another backend than the one its flow is with: it belongs to another connection, or a client
/// that has moved brings its own to a tuple that was another's.
#[inline(always)]
pub(crate) fn leaves<A>(room: &Scratch<A>) -> bool {
    room.named != BackendId::NONE && room.named != room.known.backend
}

#[inline(always)]
fn find(packet: &Packet, service: ServiceId, udp: usize, end: usize) -> Option<BackendId> {
    // Packets that are shorter than what is read here are none of QUIC's: its shortest has 16 bytes more than the id and
    // a byte on either side of it (RFC 9001 section 5.4.2).
    let quic = udp + UdpHdr::LEN;
    let (at, length) = quic::id_at(packet.read(quic)?);
    let id = quic + at;
    let [first] = packet.read(id)?;
    let config = maps::quic::config(ConfigKey::of(service, first)?)?;
    let block = id + 1;
    if length < config.id_length() || id + config.id_length() > end {
        return None;
    }
    let halves = Halves([packet.words(block)?, packet.words(block + config.right_at())?]);
    let key = if config.steps().is_empty() {
        config.server(service, &halves)
    } else {
        // Where the steps find them.
        *maps::quic::halves()? = halves;
        for number in config.steps() {
            quic_step(config, *number);
        }
        config.server(service, maps::quic::halves()?)
    };
    let id = maps::quic::server(&key)?.backend;
    let backend = maps::backend(id).ok()?;
    (backend.has(IN_USE | ALIVE) && backend.service == service).then_some(id)
}
