//! Link-layer addresses of this machine. Written by the daemon, which follows the kernel's links.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use lb_common::{
    limits::{MAX_INTERFACES, MAX_OWN_MACS},
    own_mac::{Mac, OwnMac},
};

#[btf_map]
static INTERFACE_MACS: Array<Mac, { MAX_INTERFACES as usize }> = Array::new();
#[btf_map]
static OWN_MACS: HashMap<OwnMac, u32, { MAX_OWN_MACS as usize }> = HashMap::new();

/// The first address of the interface in a slot.
#[inline(always)]
pub(crate) fn own_mac(interface_slot: u32) -> Mac {
    INTERFACE_MACS.get(interface_slot).copied().unwrap_or(Mac::ANY)
}

/// Whether frames to the address on the interface are for this machine.
#[inline(always)]
pub(crate) fn is_own_mac(mac: &OwnMac) -> bool {
    // SAFETY: only whether it is there counts.
    unsafe { OWN_MACS.get(mac) }.is_some()
}
