//! The programmed state: settings, services' addresses, rings, backends.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap},
    macros::btf_map,
};
use lb_common::{
    addr::NetAddr,
    backend::{Backend, BackendId},
    limits::{MAX_BACKENDS, MAX_SERVICES, MAX_SNAT_ADDRESSES},
    reason::Reason,
    ring_page::{self, RING_ENTRIES, RingPage},
    ring_slot::RingSlot,
    service::{AddressServices, RingId},
    settings::{ENDS_TUNNELS, HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
};

use super::services;

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static ADDRESSES: HashMap<NetAddr, AddressServices, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static RINGS: ArrayOfMaps<Array<RingPage, 1>, { RING_ENTRIES as usize }> = ArrayOfMaps::new();
#[btf_map]
static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static SNAT_ADDRESSES: Array<NetAddr, { 2 * MAX_SNAT_ADDRESSES as usize }> = Array::new();

/// The daemon's settings. An array of one: only a broken kernel misses it.
#[inline(always)]
pub(crate) fn settings() -> Result<&'static Settings, Reason> {
    SETTINGS.get(0).ok_or(Reason::Internal)
}

/// The services on this address, or on a prefix that it lies in, one of each protocol. Written by the daemon, before the first of
/// them.
#[inline(always)]
pub(crate) fn services_on(address: &NetAddr) -> AddressServices {
    // SAFETY: copied out at once; the daemon replaces values as a whole.
    let own = unsafe { ADDRESSES.get(address) }.copied().unwrap_or_default();
    if has_prefix() {
        services::with_prefixes(own, address)
    } else {
        own
    }
}

/// A slot of a ring. Written by the daemon, which puts a ring there before the service that names it. All pages are alike,
/// so that the kernel puts both look-ups in line.
#[inline(always)]
pub(crate) fn ring_slot(ring: RingId, index: u32) -> Result<RingSlot, Reason> {
    RINGS
        .get_value(ring_page::entry(ring, index), &0)
        .map(|page| page.slot(index))
        .ok_or(Reason::RingMissing)
}

/// A backend's record, in use or not. Written by the daemon; every id has a place.
#[inline(always)]
pub(crate) fn backend(id: BackendId) -> Result<&'static Backend, Reason> {
    BACKENDS.get(u32::from(id.0)).ok_or(Reason::Internal)
}

/// A source NAT address given for all backends. Written by the daemon; places beyond the counts in the settings hold
/// nothing of meaning.
#[inline(always)]
pub(crate) fn snat_address(slot: u32) -> Result<NetAddr, Reason> {
    SNAT_ADDRESSES.get(slot).copied().ok_or(Reason::NoSnatAddress)
}

/// Whether port 0 of some address stands for all its ports.
#[inline(always)]
pub(crate) fn has_wildcard() -> bool {
    settings().is_ok_and(|settings| settings.flags & HAS_WILDCARD != 0)
}

/// Whether the address of some service is a prefix.
#[inline(always)]
pub(crate) fn has_prefix() -> bool {
    settings().is_ok_and(|settings| settings.flags & HAS_PREFIX != 0)
}

/// Whether tunnels end at this machine.
#[inline(always)]
pub(crate) fn ends_tunnels() -> bool {
    settings().is_ok_and(|settings| settings.flags & ENDS_TUNNELS != 0)
}

/// Whether any service has mode `dnat`, so that any packet may be a reply.
#[inline(always)]
pub(crate) fn has_dnat() -> bool {
    settings().is_ok_and(|settings| settings.flags & HAS_DNAT != 0)
}
