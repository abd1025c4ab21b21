//! The tables of datagrams that come in fragments.

use core::ptr;

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use lb_common::{
    addr::{NetV4, NetV6},
    fragment::{Datagram, DatagramV4, DatagramV6, Went, WentV4, WentV6},
    limits::MAX_FRAGMENTED,
};

#[btf_map]
static FRAGMENTS_V4: LruHashMap<DatagramV4, WentV4, { MAX_FRAGMENTED as usize }> = LruHashMap::new();
#[btf_map]
static FRAGMENTS_V6: LruHashMap<DatagramV6, WentV6, { MAX_FRAGMENTED as usize }> = LruHashMap::new();

/// The table of a family: written by this program alone. Implemented by the family's address.
pub(crate) trait FragmentTable: Sized {
    /// Copies where the datagram's first fragment went; whether that is known.
    fn find_fragment(datagram: &Datagram<Self>, went: &mut Went<Self>) -> bool;
    /// Records it. A table that is full forgets its oldest.
    fn write_fragment(datagram: &Datagram<Self>, went: &Went<Self>);
}

macro_rules! fragment_table {
    ($address:ty, $map:ident) => {
        impl FragmentTable for $address {
            #[inline(always)]
            fn find_fragment(datagram: &Datagram<Self>, went: &mut Went<Self>) -> bool {
                let Some(found) = $map.get_ptr(datagram) else {
                    return false;
                };
                // Word by word: as a whole it would be copied byte by byte.
                let (from, to) = (found.cast::<u64>(), ptr::from_mut(went).cast::<u64>());
                for word in 0..size_of::<Went<Self>>() / size_of::<u64>() {
                    // SAFETY: both have that many words; another CPU may write the entry meanwhile.
                    unsafe { to.add(word).write(ptr::read_volatile(from.add(word))) };
                }
                true
            }

            #[inline(always)]
            fn write_fragment(datagram: &Datagram<Self>, went: &Went<Self>) {
                // An error means that all entries are just being written: the later fragments are dropped, counted.
                let _ = $map.insert(datagram, went, u64::from(BPF_ANY));
            }
        }
    };
}

fragment_table!(NetV4, FRAGMENTS_V4);
fragment_table!(NetV6, FRAGMENTS_V6);
