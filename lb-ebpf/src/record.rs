//! The stage that records packets, after all others, in the program that runs while `lb monitor` does.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use lb_common::{
    addr::{NetAddr, NetV4},
    backend::BackendId,
    monitor::{AFTER_LEN, BEFORE_LEN, Direction, FILTER_BACKENDS, Filter},
    reason::Reason,
};

use crate::{maps::monitor as maps, verdict};

/// Types of an Ethernet frame, as they stand in memory, and bytes of the header and of a tag.
const VLAN: [u16; 2] = [0x8100_u16.to_be(), 0x88a8_u16.to_be()];
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const TYPE_AT: usize = 12;
const TAG_LEN: usize = 4;
const TAGS: usize = 2;

/// Records the packet if the filter wants it, and ends its way.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "frames are of some KiB")]
pub(crate) fn stage(ctx: *mut xdp_md) -> u32 {
    let (Some(seen), Some(filter), Some(recorded)) = (maps::seen(), maps::filter(), maps::recorded()) else {
        return verdict::action(Reason::Internal);
    };
    // SAFETY: from the maps' look-ups, and the context of this run.
    unsafe {
        let record = &raw mut (*seen).record;
        let reason = Reason::from_number((*record).reason).unwrap_or(Reason::Internal);
        if !is_of_backends(filter, (*record).backend) {
            return verdict::action(reason);
        }
        let by_client = (*filter).by_client != 0;
        if (*seen).is_allowed == 0 && !by_client {
            maps::count(&raw mut (*recorded).lost);
            return verdict::action(reason);
        }
        let sent_len = bpf_xdp_get_buff_len(ctx) as u32;
        (*record).sent_len = sent_len;
        let after = (&raw mut (*record).after).cast();
        // One less, since Linux 6.1 takes no range from a comparison with 0 and refuses a length that may be 0.
        let less = core::hint::black_box(sent_len.min(AFTER_LEN as u32).wrapping_sub(1));
        if less >= AFTER_LEN as u32 {
            return verdict::action(reason);
        }
        let after_len = less + 1;
        if bpf_xdp_load_bytes(ctx, 0, after, after_len) != 0 {
            return verdict::action(reason);
        }
        (*record).after_len = after_len as u16;
        if (*record).before_len == 0 {
            // Not changed, see `CHANGED`.
            let before = (&raw mut (*record).before).cast();
            let less = core::hint::black_box(after_len.min(BEFORE_LEN as u32).wrapping_sub(1));
            if less >= BEFORE_LEN as u32 || bpf_xdp_load_bytes(ctx, 0, before, less + 1) != 0 {
                return verdict::action(reason);
            }
            (*record).before_len = less as u16 + 1;
        }
        if by_client {
            // Requests are the client's as they came, replies as they leave, and of others nothing is known.
            let direction = (*record).direction;
            let from = address((&raw const (*record).before).cast(), false);
            let to = address((&raw const (*record).after).cast(), true);
            let is_from = direction != Direction::Reply as u16 && is_client(filter, from);
            let is_to = direction != Direction::Request as u16 && is_client(filter, to);
            if !is_from && !is_to {
                return verdict::action(reason);
            }
        }
        if (*seen).is_allowed == 0 {
            maps::count(&raw mut (*recorded).lost);
            return verdict::action(reason);
        }
        (*record).at = bpf_ktime_get_ns();
        if maps::write(&*record) {
            maps::count(&raw mut (*recorded).records);
        } else {
            maps::count(&raw mut (*recorded).lost);
        }
        verdict::action(reason)
    }
}

/// Whether a packet of this backend is wanted.
///
/// # Safety
///
/// `filter` points to the filter.
#[inline(always)]
unsafe fn is_of_backends(filter: *const Filter, backend: BackendId) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let count = usize::from((*filter).backend_count);
        if count == 0 {
            return true;
        }
        let backends = (&raw const (*filter).backends).cast::<BackendId>();
        (0..FILTER_BACKENDS).any(|index| index < count && *backends.add(index) == backend)
    }
}

/// The source or destination of an IP packet in a frame of which the headers are there; of other frames the unspecified address.
///
/// # Safety
///
/// The addresses of an IPv6 packet behind [`TAGS`] tags lie within what can be read.
#[inline(always)]
unsafe fn address(frame: *const u8, is_destination: bool) -> NetAddr {
    let half = |at: usize| {
        // SAFETY: by the contract.
        unsafe { frame.add(at).cast::<u16>().read_unaligned() }
    };
    let word = |at: usize| {
        // SAFETY: by the contract.
        unsafe { frame.add(at).cast::<u32>().read_unaligned() }
    };
    let mut at = TYPE_AT;
    for _ in 0..TAGS {
        if VLAN.contains(&half(at)) {
            at += TAG_LEN;
        }
    }
    let header = at + 2;
    match half(at) {
        IPV4 => {
            let at = header + if is_destination { 16 } else { 12 };
            NetAddr::from_v4(NetV4(word(at)))
        }
        IPV6 => {
            let at = header + if is_destination { 24 } else { 8 };
            NetAddr([word(at), word(at + 4), word(at + 8), word(at + 12)])
        }
        _ => NetAddr::default(),
    }
}

/// Whether packets of the client at this address are wanted.
///
/// # Safety
///
/// `filter` points to the filter.
#[inline(always)]
unsafe fn is_client(filter: *const Filter, address: NetAddr) -> bool {
    // SAFETY: by the contract.
    let (client, mask) = unsafe { ((*filter).client, (*filter).client_mask) };
    (0..4).all(|word| address.0[word] & mask.0[word] == client.0[word])
}
