//! Recording of packets, in the program that runs while `lb monitor` does. [`begin`] says of which packets is kept how they came, which
//! [`keep`] does before they change, the counters note what becomes known of them, and [`finish`] has [`crate::record`] make a record if
//! the filter may want one.

use core::ptr;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    backend::BackendId,
    monitor::{CHANGED, Direction, SLOT},
    reason::Reason,
    service::ServiceId,
    vlan::Tags,
};

use crate::{jump::tail_call, maps::monitor as maps, packet::Packet};

/// Whether it is kept how a packet came. A number, which costs less than an enum here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeps(u32);

impl Keeps {
    const NONE: Self = Self(u32::MAX);
    const ALL: Self = Self(u32::MAX - 1);

    /// Only a packet of this service.
    #[inline(always)]
    const fn of(service: ServiceId) -> Self {
        Self(service.0 as u32)
    }

    /// Keeps how a packet came that is about to leave for its service by the shortest way.
    #[inline(always)]
    pub(crate) fn packet_of(self, service: ServiceId, packet: &Packet) {
        if self == Self::ALL || self == Self::of(service) {
            keep(packet);
        }
    }

    /// Keeps how a packet came that goes on to another stage: its service may be known only there.
    #[inline(always)]
    pub(crate) fn any_packet(self, packet: &Packet) {
        if self != Self::NONE {
            keep(packet);
        }
    }
}

/// Decides whether the packet is looked at.
#[inline(always)]
pub(crate) fn begin() -> Keeps {
    let (Some(seen), Some(filter)) = (maps::seen(), maps::filter()) else {
        return Keeps::NONE;
    };
    // SAFETY: from the maps' look-ups; volatile, since the daemon and other CPUs write meanwhile.
    unsafe {
        let skipped = (*seen).skipped + 1;
        if skipped < ptr::read_volatile(&raw const (*filter).sample) {
            (*seen).skipped = skipped;
            (*seen).reasons = 0;
            return Keeps::NONE;
        }
        let Some(recorded) = maps::recorded() else {
            return Keeps::NONE;
        };
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
        let service = (*seen).service;
        if reasons & CHANGED == 0 || (*seen).is_surely_lost != 0 {
            Keeps::NONE
        } else if service == ServiceId::NONE {
            Keeps::ALL
        } else {
            Keeps::of(service)
        }
    }
}

/// Keeps how a packet came that is about to be changed, though it may then be dropped or pass.
#[inline(always)]
pub(crate) fn keep(packet: &Packet) {
    // SAFETY: the context of this run.
    unsafe { keep_start(packet.context()) };
}

/// [`keep`]. A global function (see [`crate::global`]), so that most packets, which the filter does not want, go past a call and not past all this.
///
/// # Safety
///
/// `ctx` is the context of the packet that the program runs on.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn keep_start(ctx: *mut xdp_md) -> u32 {
    let Some(seen) = maps::seen() else { return 0 };
    // SAFETY: from the map's look-up, and by the contract; the missing length of the frame is not used.
    unsafe {
        let record = &raw mut (*seen).record;
        if (*seen).reasons != 0 && (*seen).is_surely_lost == 0 && (*record).before_len == 0 {
            let packet = Packet::resume(ctx, Tags::NONE, 0);
            (*record).before_len = packet.copy_start(&raw mut (*record).before);
        }
    }
    0
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
