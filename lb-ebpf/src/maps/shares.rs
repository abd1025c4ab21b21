//! Shares of the flow table, see [`lb_common::share`].

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{limits::MAX_SERVICES, service::ServiceId, share::FlowUse};

use super::atomic::fetch_add;

#[btf_map]
static FLOW_USES: Array<FlowUse, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static FLOW_SHARES: Array<u64, { MAX_SERVICES as usize }> = Array::new();

/// Whether a service uses more than its share.
#[inline(always)]
pub(crate) fn is_over(service: ServiceId) -> bool {
    let id = u32::from(service.0);
    let (Some(uses), Some(share)) = (FLOW_USES.get(id), FLOW_SHARES.get(id)) else {
        return false;
    };
    // Modulo 2^64: more flows may have given way than were counted as opened.
    let left = share.wrapping_sub(uses.opened).cast_signed();
    *share != 0 && left <= 0
}

/// Counts a flow of a service that was opened.
#[inline(always)]
pub(crate) fn count_opened(service: ServiceId) {
    if let Some(uses) = FLOW_USES.get_ptr_mut(u32::from(service.0)) {
        // SAFETY: a field of the map's value.
        unsafe { fetch_add(&raw mut (*uses).opened, 1) };
    }
}

/// Counts a flow of a service that gave way.
#[inline(always)]
pub(crate) fn count_gave_way(service: ServiceId) {
    if let Some(uses) = FLOW_USES.get_ptr_mut(u32::from(service.0)) {
        // SAFETY: a field of the map's value.
        unsafe {
            fetch_add(&raw mut (*uses).opened, u64::MAX);
            fetch_add(&raw mut (*uses).gave_way, 1);
        }
    }
}
