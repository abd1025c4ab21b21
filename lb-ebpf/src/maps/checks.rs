//! Backends that are checked through the path.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use lb_common::check::{MAX_CHECKS, PathCheck};

use super::atomic::NO_PREALLOC;

/// Not pinned: it belongs to the daemon that makes the checks.
#[btf_map]
static SCRATCH_CHECKS: HashMap<u32, PathCheck, { MAX_CHECKS as usize }, NO_PREALLOC> = HashMap::new();

/// How the backend of this number is checked. Written by the daemon; missing: it is not checked.
#[inline(always)]
pub(crate) fn path_check(backend: u16) -> Option<&'static PathCheck> {
    let check = SCRATCH_CHECKS.get_ptr(u32::from(backend))?;
    // SAFETY: from the map's look-up. While the daemon replaces it, a packet may see half of each, and is lost.
    Some(unsafe { &*check })
}
