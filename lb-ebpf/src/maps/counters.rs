//! Counters.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    helpers::generated::bpf_get_smp_processor_id,
    macros::btf_map,
};
#[cfg(feature = "monitor")]
use lb_common::monitor::Direction;
use lb_common::{
    backend::BackendId,
    counters::{
        PacketCount, ReasonCounts, Signals, Traffic, VERDICT_SLOTS, backend_slot, service_slot, verdict_slot,
    },
    limits::{MAX_BACKENDS, MAX_SERVICES},
    reason::{Action, REASON_SLOTS, Reason, TUNNELS_ENDED},
    service::ServiceId,
};

#[btf_map]
static VERDICTS: PerCpuArray<PacketCount, { VERDICT_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static SERVICE_TRAFFIC: Array<Traffic, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static BACKEND_TRAFFIC: Array<Traffic, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static BACKEND_SIGNALS: Array<Signals, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static SERVICE_DROPS: Array<ReasonCounts, { MAX_SERVICES as usize }> = Array::new();

/// Counts a packet of `bytes` for `reason` on the interface in `interface_slot`. A slot out of range counts nowhere;
/// the loader sets it within.
#[inline(always)]
pub(crate) fn count_verdict(interface_slot: u32, reason: Reason, bytes: u64) {
    count_packet(verdict_slot(interface_slot, reason as u32), bytes);
}

/// Counts a packet of `bytes` that came through a tunnel which ends here.
#[inline(always)]
pub(crate) fn count_tunnel_ended(interface_slot: u32, bytes: u64) {
    count_packet(verdict_slot(interface_slot, TUNNELS_ENDED), bytes);
}

#[inline(always)]
fn count_packet(slot: u32, bytes: u64) {
    if let Some(count) = VERDICTS.get_ptr_mut(slot) {
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    }
}

/// Applies `count` to the traffic of a service and of a backend.
#[inline(always)]
fn count_traffic(service: ServiceId, backend: BackendId, count: impl Fn(&mut Traffic)) {
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(service_slot(cpu, u32::from(service.0))) {
        // SAFETY: from the map's look-up; each CPU has a row of its own, and runs one XDP program at a time.
        count(unsafe { &mut *traffic });
    }
    if let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(backend_slot(cpu, u32::from(backend.0))) {
        // SAFETY: as above.
        count(unsafe { &mut *traffic });
    }
}

/// Counts a packet of `bytes` from a client to its backend, and the flow if it begins one.
#[inline(always)]
pub(crate) fn count_forward(service: ServiceId, backend: BackendId, bytes: u64, new_flow: bool) {
    #[cfg(feature = "monitor")]
    super::monitor::note(service, backend, Direction::Request);
    count_traffic(service, backend, |traffic| {
        traffic.packets += 1;
        traffic.bytes += bytes;
        if new_flow {
            traffic.new_flows += 1;
        }
    });
}

/// Counts a packet of `bytes` from a backend to its client.
#[inline(always)]
pub(crate) fn count_reply(service: ServiceId, backend: BackendId, bytes: u64) {
    #[cfg(feature = "monitor")]
    super::monitor::note(service, backend, Direction::Reply);
    count_traffic(service, backend, |traffic| {
        traffic.reply_packets += 1;
        traffic.reply_bytes += bytes;
    });
}

/// Applies `count` to the signals of flows about a backend.
#[inline(always)]
pub(crate) fn count_signal(backend: BackendId, count: impl Fn(&mut Signals)) {
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(signals) = BACKEND_SIGNALS.get_ptr_mut(backend_slot(cpu, u32::from(backend.0))) {
        // SAFETY: as in `count_traffic`.
        count(unsafe { &mut *signals });
    }
}

/// Counts a packet of a service that is dropped, or that we answer ourselves.
#[inline(always)]
pub(crate) fn count_service_drop(service: ServiceId, reason: Reason) {
    #[cfg(feature = "monitor")]
    super::monitor::note(service, BackendId::NONE, Direction::Request);
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(drops) = SERVICE_DROPS.get_ptr_mut(service_slot(cpu, u32::from(service.0))) {
        // The compiler knows that reasons are below the array's length, and would leave out the bound that the
        // verifier asks for.
        let slot = core::hint::black_box(reason as u32) % REASON_SLOTS;
        // SAFETY: as in `count_traffic`; the bound is just above.
        unsafe { *(*drops).0.as_mut_ptr().add(slot as usize) += 1 };
    }
}

/// Counts a drop for the service, if it is one.
#[inline(always)]
pub(crate) fn count_drop(service: ServiceId, reason: Reason) {
    match reason.action() {
        Action::Drop | Action::Aborted => count_service_drop(service, reason),
        Action::Tx | Action::Redirect | Action::Pass => {}
    }
}
