//! The owners of replies by their endpoint, in mode `dnat`.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    limits::MAX_BACKENDS,
    reply::{ReplyAs, ReplyAsV4, ReplyAsV6},
    service::{FILTER_WORDS, FilterBit, ServiceKeyV4, ServiceKeyV6},
};

use super::atomic::NO_PREALLOC;

#[btf_map]
static REPLIES_V4: HashMap<ServiceKeyV4, ReplyAsV4, { MAX_BACKENDS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static REPLIES_V6: HashMap<ServiceKeyV6, ReplyAsV6, { MAX_BACKENDS as usize }, NO_PREALLOC> = HashMap::new();

/// Bits of the keys in both tables.
#[btf_map]
static REPLY_FILTER: Array<u64, { FILTER_WORDS as usize }> = Array::new();

/// Whether an endpoint may have the key with this bit. Written by the daemon, before the endpoint. Spares most packets that
/// are no replies a look-up ten times as long.
#[inline(always)]
fn is_in_filter(bit: FilterBit) -> bool {
    REPLY_FILTER
        .get(bit.word())
        .is_some_and(|word| word & bit.mask() != 0)
}

/// The endpoints of a family. Implemented by the family's address.
pub(crate) trait ReplyTable: Sized {
    /// The translation of packets from an endpoint. Written by the daemon; missing: they are no replies.
    fn reply_as(address: Self, port: NetPort, protocol: u8) -> Option<ReplyAs<Self>>;
    /// Whether there may be such an endpoint: `false` is certain, and costs a tenth of the look-up.
    fn may_be_reply(address: Self, port: NetPort, protocol: u8) -> bool;
}

macro_rules! reply_table {
    ($address:ty, $map:ident, $key:ident) => {
        impl ReplyTable for $address {
            #[inline(always)]
            fn reply_as(address: Self, port: NetPort, protocol: u8) -> Option<ReplyAs<Self>> {
                let key = $key {
                    address,
                    port,
                    protocol,
                    pad: 0,
                };
                // SAFETY: copied out at once; the daemon replaces entries as a whole.
                unsafe { $map.get(&key) }.copied()
            }

            #[inline(always)]
            fn may_be_reply(address: Self, port: NetPort, protocol: u8) -> bool {
                let key = $key {
                    address,
                    port,
                    protocol,
                    pad: 0,
                };
                is_in_filter(key.filter_bit())
            }
        }
    };
}

reply_table!(NetV4, REPLIES_V4, ServiceKeyV4);
reply_table!(NetV6, REPLIES_V6, ServiceKeyV6);
