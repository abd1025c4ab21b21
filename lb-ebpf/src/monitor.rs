//! Recording of packets, in the program that runs while `lb monitor` does. [`begin`] keeps how a packet came, the counters note what
//! becomes known of it, and [`finish`] has [`crate::record`] make a record if the filter may want one.

use core::ptr;

use lb_common::{
    backend::BackendId,
    monitor::{Direction, SLOT},
    reason::Reason,
    service::ServiceId,
};

use crate::{jump::tail_call, maps::monitor as maps, packet::Packet};

/// Decides whether the packet is looked at, and keeps how it came.
#[inline(always)]
pub(crate) fn begin(packet: &Packet) {
    let (Some(seen), Some(filter), Some(recorded)) = (maps::seen(), maps::filter(), maps::recorded()) else {
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
        (*seen).skipped = 0;
        (*seen).reasons = ptr::read_volatile(&raw const (*filter).reasons);
        (*seen).service = (*filter).service;
        let record = &raw mut (*seen).record;
        (*record).service = ServiceId::NONE;
        (*record).backend = BackendId::NONE;
        (*record).direction = Direction::Unknown as u16;
        let is_allowed = ptr::read_volatile(&raw const (*recorded).records)
            < ptr::read_volatile(&raw const (*filter).allowance);
        (*seen).is_allowed = is_allowed.into();
        if is_allowed || (*filter).by_client != 0 {
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
        (*seen).record.interface_slot = interface_slot;
        (*seen).record.received_len = packet.received_len();
        (*seen).record.reason = reason as u32;
    }
    tail_call!(packet, SLOT);
}
