//! Where sequences go on that all CPUs share.

use core::ptr;

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_get_prandom_u32, macros::btf_map};
use lb_common::{
    backend::BackendId,
    limits::{MAX_BACKENDS, MAX_SERVICES},
    reason::Reason,
    service::ServiceId,
};

use super::atomic::fetch_add;
use crate::clock::now_secs;

/// Where the search for a source port towards a backend goes on. Pinned: a program that began elsewhere would meet the ports of
/// flows that have just begun.
#[btf_map]
static PORT_CURSORS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

/// Not pinned, as what follows: where it begins does not matter. Who last repeated a SYN to a backend that had not answered: a hash of the address, and the time in seconds.
#[btf_map]
static SCRATCH_REPEATERS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

/// Which slot of a service is next.
#[btf_map]
static SCRATCH_TURNS: Array<u64, { MAX_SERVICES as usize }> = Array::new();

/// The next turn of the search for a source port towards a backend. Turns follow each other, so that a port that was
/// just freed comes again after all others: the backend may still hold its last connection in TIME_WAIT. CPUs never
/// get the same turn.
#[inline(always)]
pub(crate) fn port_turn(backend: BackendId) -> Result<u64, Reason> {
    let cursor = PORT_CURSORS
        .get_ptr_mut(u32::from(backend.0))
        .ok_or(Reason::Internal)?;
    // SAFETY: from the map's look-up.
    let turn = unsafe { fetch_add(cursor, 1) };
    if turn != 0 {
        return Ok(turn);
    }
    // The first: not where it began before the machine's last start. One turn is taken already.
    // SAFETY: takes no arguments.
    let start = u64::from(unsafe { bpf_get_prandom_u32() });
    // SAFETY: from the map's look-up.
    Ok(unsafe { fetch_add(cursor, start) } + start - 1)
}

/// Remembers that a client of a backend repeats its SYN. Returns whether another one did within the last `secs` seconds.
#[inline(always)]
pub(crate) fn follows_another(backend: BackendId, client: u32, secs: u32) -> bool {
    let Some(last) = SCRATCH_REPEATERS.get_ptr_mut(u32::from(backend.0)) else {
        return false;
    };
    let now = now_secs();
    // SAFETY: from the map's look-up. What CPUs overwrite of each other counts for nothing.
    let before = unsafe { ptr::read_volatile(last) };
    // SAFETY: from the map's look-up.
    unsafe { ptr::write_volatile(last, u64::from(now) << 32 | u64::from(client)) };
    #[expect(clippy::cast_possible_truncation, reason = "the half that it is")]
    let (at, who) = ((before >> 32) as u32, before as u32);
    who != client && now.wrapping_sub(at) < secs
}

/// The next turn of a service's new flows. CPUs never get the same one.
#[inline(always)]
pub(crate) fn service_turn(service: ServiceId) -> Result<u64, Reason> {
    let turns = SCRATCH_TURNS
        .get_ptr_mut(u32::from(service.0))
        .ok_or(Reason::Internal)?;
    // SAFETY: from the map's look-up.
    Ok(unsafe { fetch_add(turns, 1) })
}
