//! Which tunnels end at this machine.

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{addr::NetAddr, decap::EndKey, limits::MAX_TUNNEL_ENDS};

#[btf_map]
static TUNNEL_ENDS: LpmTrie<EndData, u32, { MAX_TUNNEL_ENDS as usize }> = LpmTrie::new();

/// An [`EndKey`] behind its first field.
type EndData = [u32; 5];
const _: () = assert!(size_of::<Key<EndData>>() == size_of::<EndKey>());

/// Whether an address is of this kind: a source of tunnels, or an end of them. Written by the daemon, before the settings say that
/// tunnels end here.
#[inline(always)]
pub(crate) fn has(kind: u8, address: &NetAddr) -> bool {
    let key = EndKey::new(kind, *address, EndKey::ADDRESS);
    // SAFETY: the same bytes; the other type is aligned to 1.
    let key = unsafe { &*core::ptr::from_ref(&key).cast::<Key<EndData>>() };
    TUNNEL_ENDS.get(key).is_some()
}
