//! Recording of packets, in the program that runs while `lb monitor` does. [`begin`] keeps how a packet came, the counters note what
//! becomes known of it, and [`finish`] has [`crate::record`] make a record if the filter may want one.

use core::ptr;

use lb_common::{
    backend::BackendId,
    monitor::{CHANGED, Direction, SLOT},
    reason::Reason,
    service::ServiceId,
};

use crate::{jump::tail_call, maps::monitor as maps, packet::Packet};

/// Decides whether the packet is looked at, and keeps how it came if it may leave changed.
#[inline(always)]
pub(crate) fn begin(packet: &Packet) {
    let (Some(seen), Some(filter)) = (maps::seen(), maps::filter()) else {
        return;
    };
    // SAFETY: from the maps' look-ups; volatile, since the daemon and other CPUs write meanwhile.
    unsafe {
        let skipped = (*seen).skipped + 1;
        if skipped < ptr::read_volatile(&raw const (*filter).sample) {
            (*seen).skipped = skipped;
            (*seen).reasons = 0;
            return;
        }
        let Some(recorded) = maps::recorded() else { return };
        let reasons = ptr::read_volatile(&raw const (*filter).reasons);
        (*seen).skipped = 0;
        (*seen).reasons = reasons;
        (*seen).service = (*filter).service;
        let record = &raw mut (*seen).record;
        (*record).service = ServiceId::NONE;
        (*record).backend = BackendId::NONE;
        (*record).direction = Direction::Unknown as u16;
        (*record).before_len = 0;
        let is_allowed = ptr::read_volatile(&raw const (*recorded).records)
            < ptr::read_volatile(&raw const (*filter).allowance);
        (*seen).is_allowed = is_allowed.into();
        let looks_closer = (*filter).by_client != 0 || (*filter).backend_count != 0;
        (*seen).is_surely_lost = (!is_allowed && !looks_closer).into();
        if reasons & CHANGED != 0 && (*seen).is_surely_lost == 0 {
            (*record).before_len = packet.copy_start(&raw mut (*record).before);
        }
    }
}

/// Keeps how a packet came that is about to be changed, though it may then be dropped or pass.
#[inline(always)]
pub(crate) fn keep(packet: &Packet) {
    let Some(seen) = maps::seen() else { return };
    // SAFETY: from the map's look-up.
    unsafe {
        let record = &raw mut (*seen).record;
        if (*seen).reasons != 0 && (*seen).is_surely_lost == 0 && (*record).before_len == 0 {
            (*record).before_len = packet.copy_start(&raw mut (*record).before);
        }
    }
}

/// The packet is about to leave for this reason. Comes back if the filter does not want it.
#[inline(always)]
pub(crate) fn finish(packet: &Packet, interface_slot: u32, reason: Reason) {
    let Some(seen) = maps::seen() else { return };
    // SAFETY: from the map's look-up.
    unsafe {
        if (*seen).reasons & (1 << reason as u32) == 0 {
            return;
        }
        if (*seen).service != ServiceId::NONE && (*seen).service != (*seen).record.service {
            return;
        }
        // Nothing that is known of the packet later would have it recorded: counted here, it needs no stage.
        if (*seen).is_surely_lost != 0 {
            if let Some(recorded) = maps::recorded() {
                maps::count(&raw mut (*recorded).lost);
            }
            return;
        }
        (*seen).record.interface_slot = interface_slot;
        (*seen).record.received_len = packet.received_len();
        (*seen).record.reason = reason as u32;
    }
    tail_call!(packet, SLOT);
}
