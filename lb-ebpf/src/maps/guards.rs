//! The maps behind the guards of services, and behind what a service may do so often.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{Array, LpmTrie, LruHashMap, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    budget::Buckets,
    guard::{ALLOW, FlowGuard, PrefixKey, SourceKey},
    limits::{MAX_GUARD_PREFIX_ENTRIES, MAX_GUARD_SOURCES, MAX_SERVICES},
    reason::Reason,
    service::ServiceId,
};

#[btf_map]
static BUCKETS: Array<Buckets, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static GUARD_PREFIXES: LpmTrie<PrefixData, u32, { MAX_GUARD_PREFIX_ENTRIES as usize }> = LpmTrie::new();

#[btf_map]
static FLOW_GUARDS: Array<FlowGuard, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static GUARD_SOURCES: LruHashMap<SourceKey, u64, { MAX_GUARD_SOURCES as usize }> = LruHashMap::new();

/// A [`PrefixKey`] behind its first field.
type PrefixData = [u32; 5];
const _: () = assert!(size_of::<Key<PrefixData>>() == size_of::<PrefixKey>());

/// The verdict of the longest prefix that contains a key's address; [`ALLOW`] without one. Written by the daemon, before
/// the service's flag for prefixes.
#[inline(always)]
pub(crate) fn prefix(key: &PrefixKey) -> u32 {
    // SAFETY: the same bytes; the other type is aligned to 1.
    let key = unsafe { &*core::ptr::from_ref(key).cast::<Key<PrefixData>>() };
    GUARD_PREFIXES.get(key).copied().unwrap_or(ALLOW)
}

/// The buckets of a service, by atomic access only. Written by this program; every id has a place.
#[inline(always)]
pub(crate) fn buckets(service: ServiceId) -> Result<*mut Buckets, Reason> {
    BUCKETS.get_ptr_mut(u32::from(service.0)).ok_or(Reason::Internal)
}

/// The budgets of a service's new flows. Written by the daemon, before the service's flag for them; every id has a place.
#[inline(always)]
pub(crate) fn of_flows(service: ServiceId) -> Result<&'static FlowGuard, Reason> {
    FLOW_GUARDS.get(u32::from(service.0)).ok_or(Reason::Internal)
}

/// The bucket of a source, by atomic access only. Written by this program; the map forgets the source that was idle for
/// longest.
#[inline(always)]
pub(crate) fn source(key: &SourceKey) -> Option<*mut u64> {
    GUARD_SOURCES.get_ptr_mut(key)
}

/// Puts a source's first bucket in place. Where another CPU was faster, its flow is not counted; where there is no memory, the
/// source is not limited.
#[inline(always)]
pub(crate) fn add_source(key: &SourceKey, bucket: u64) {
    let _ = GUARD_SOURCES.insert(key, bucket, u64::from(BPF_ANY));
}
