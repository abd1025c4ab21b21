//! VLAN tags in words, there and back.

use lb_common::vlan::{Tags, Vlans};

pub(crate) fn check(bytes: &[u8]) {
    let Some(words) = bytes.first_chunk::<8>() else {
        return;
    };
    let word = |at: usize| u32::from_ne_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
    let (outer, inner) = (word(0), word(4));
    if !Tags::is_tag(outer) || !(inner == 0 || Tags::is_tag(inner)) {
        return;
    }
    let tags = Tags::new(outer, inner);
    assert_eq!((tags.outer(), tags.inner()), (outer, inner));
    let vlans = Vlans::of_tags(tags);
    let (first, second) = vlans.get();
    assert!(first.is_some() && second.is_some() == (inner != 0));
    assert_eq!(Vlans::new(first, second), Some(vlans));
    let again = vlans.tags();
    assert_eq!(Vlans::of_tags(again), vlans);
    // All but the priority comes back.
    let number_and_kind = 0xffff_0fff_u32.to_be();
    assert_eq!(again.outer(), outer & number_and_kind);
    assert_eq!(again.inner(), inner & number_and_kind);
}
