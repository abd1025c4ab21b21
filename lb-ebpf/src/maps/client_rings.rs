//! The rings of clients that go to a group of backends.

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{clients::ClientRing, guard::PrefixKey, limits::MAX_CLIENT_PREFIX_ENTRIES};

#[btf_map]
static CLIENT_RINGS: LpmTrie<PrefixData, ClientRing, { MAX_CLIENT_PREFIX_ENTRIES as usize }> = LpmTrie::new();

/// A [`PrefixKey`] behind its first field.
type PrefixData = [u32; 5];
const _: () = assert!(size_of::<Key<PrefixData>>() == size_of::<PrefixKey>());

/// The ring of the longest prefix that contains a key's address. Written by the daemon, before the service's flag.
#[inline(always)]
pub(crate) fn of(key: &PrefixKey) -> Option<ClientRing> {
    // SAFETY: the same bytes; the other type is aligned to 1.
    let key = unsafe { &*core::ptr::from_ref(key).cast::<Key<PrefixData>>() };
    CLIENT_RINGS.get(key).copied()
}
