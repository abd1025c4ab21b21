//! The maps, reached only through the functions here: each says who writes the map, who reads it, and what happens
//! when an entry is missing or the map is full.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    addr::NetAddr,
    backend::Backend,
    counters::{PacketCount, SERVICE_DROP_SLOTS, Traffic, VERDICT_SLOTS, verdict_slot},
    flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6},
    limits::{MAX_BACKENDS, MAX_FLOWS, MAX_RINGS, MAX_SERVICES, MAX_SNAT_ADDRESSES, RING_SIZE_MIN},
    reason::Reason,
    ring_slot::RingSlot,
    service::{Service, ServiceKeyV4, ServiceKeyV6},
    settings::Settings,
};

/// Flow tables allocate an entry when a flow begins: a million idle entries of two families would cost 300 MB.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
/// Rings of different sizes stand in one map of maps.
const INNER_MAP: usize = BPF_F_INNER_MAP as usize;

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static SERVICES_V4: HashMap<ServiceKeyV4, Service, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static SERVICES_V6: HashMap<ServiceKeyV6, Service, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static RINGS: ArrayOfMaps<Array<RingSlot, { RING_SIZE_MIN as usize }, INNER_MAP>, { MAX_RINGS as usize }> =
    ArrayOfMaps::new();
#[btf_map]
static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static SNAT_ADDRESSES: Array<NetAddr, { 2 * MAX_SNAT_ADDRESSES as usize }> = Array::new();
#[btf_map]
static FLOWS_V4: HashMap<TupleV4, NatFlowV4, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static FLOWS_V6: HashMap<TupleV6, NatFlowV6, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static VERDICTS: PerCpuArray<PacketCount, { VERDICT_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static SERVICE_TRAFFIC: PerCpuArray<Traffic, { MAX_SERVICES as usize }> = PerCpuArray::new();
#[btf_map]
static BACKEND_TRAFFIC: PerCpuArray<Traffic, { MAX_BACKENDS as usize }> = PerCpuArray::new();
#[btf_map]
static SERVICE_DROPS: PerCpuArray<u64, { SERVICE_DROP_SLOTS as usize }> = PerCpuArray::new();

/// Counts a packet of `bytes` for `reason` on the interface in `interface_slot`. A slot out of range counts nowhere;
/// the loader sets it within.
#[inline(always)]
pub(crate) fn count_verdict(interface_slot: u32, reason: Reason, bytes: u64) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict_slot(interface_slot, reason as u32)) {
        // SAFETY: the pointer comes from the map's look-up, and no other program runs on this CPU meanwhile.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    }
}
