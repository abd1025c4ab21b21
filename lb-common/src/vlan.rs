//! VLAN tags of a frame (IEEE 802.1Q, and 802.1ad for the outer of two).
//!
//! The program takes tags off a frame before it reads the packet, and puts on the tags of the way out when it sends it:
//! no code in between sees tags.

use crate::plain_data;

/// EtherType of a customer tag (802.1Q).
const CUSTOMER: u16 = 0x8100;
/// EtherType of a service tag (802.1ad).
const SERVICE: u16 = 0x88a8;

/// Bits of a tag that number the VLAN. The others are priority and drop eligibility.
const VID: u16 = 0x0fff;
/// There is a tag; its number may be 0.
const PRESENT: u16 = 1 << 14;
/// The tag is a service tag.
const IS_SERVICE: u16 = 1 << 15;

/// Bytes of one tag.
pub const TAG_LEN: u32 = 4;

/// The VLANs that a frame belongs to: none, one, or one within another. Priorities are not part of it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Vlans(pub u32);

/// One VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vlan {
    /// Its number.
    pub id: u16,
    /// Whether its tags are service tags (802.1ad).
    pub service: bool,
}

impl Vlan {
    const fn half(self) -> u32 {
        let kind = if self.service { IS_SERVICE } else { 0 };
        (self.id & VID | PRESENT | kind) as u32
    }

    const fn of(half: u16) -> Option<Self> {
        if half & PRESENT == 0 {
            return None;
        }
        Some(Self {
            id: half & VID,
            service: half & IS_SERVICE != 0,
        })
    }
}

impl Vlans {
    /// No VLAN.
    pub const NONE: Self = Self(0);

    /// From the outer to the inner one; `None` if only the inner one is set.
    pub const fn new(outer: Option<Vlan>, inner: Option<Vlan>) -> Option<Self> {
        match (outer, inner) {
            (None, None) => Some(Self::NONE),
            (Some(only), None) => Some(Self(only.half())),
            (Some(outer), Some(inner)) => Some(Self(outer.half() | inner.half() << u16::BITS)),
            (None, Some(_)) => None,
        }
    }

    /// The outer VLAN, and the one within it.
    pub const fn get(self) -> (Option<Vlan>, Option<Vlan>) {
        #[expect(clippy::cast_possible_truncation, reason = "its halves")]
        (Vlan::of(self.0 as u16), Vlan::of((self.0 >> u16::BITS) as u16))
    }

    /// The VLANs of these tags.
    #[inline(always)]
    pub const fn of_tags(tags: Tags) -> Self {
        Self(half_of(tags.outer()) | half_of(tags.inner()) << u16::BITS)
    }

    /// Tags of these VLANs, of the lowest priority.
    #[inline(always)]
    pub const fn tags(self) -> Tags {
        #[expect(clippy::cast_possible_truncation, reason = "its halves")]
        Tags::new(tag_of(self.0 as u16), tag_of((self.0 >> u16::BITS) as u16))
    }
}

/// Without branches, each of which would double the paths that the verifier walks behind it.
#[inline(always)]
const fn half_of(tag: u32) -> u32 {
    let tag = u32::from_be(tag);
    let present = (tag >> PRESENT_IN_TAG) * PRESENT as u32;
    let kind = (tag >> SERVICE_IN_TAG & 1) * IS_SERVICE as u32;
    tag & VID as u32 | present | kind
}

/// The highest bit of a tag, which both of its `EtherType`s have, and the bit in which these differ.
const PRESENT_IN_TAG: u32 = u32::BITS - 1;
const SERVICE_IN_TAG: u32 = u16::BITS + 11;
const _: () = assert!(SERVICE & CUSTOMER & 1 << 15 != 0 && SERVICE & !CUSTOMER & 1 << 11 != 0);

#[inline(always)]
const fn tag_of(half: u16) -> u32 {
    if half & PRESENT == 0 {
        return 0;
    }
    let kind = if half & IS_SERVICE != 0 { SERVICE } else { CUSTOMER };
    ((kind as u32) << u16::BITS | (half & VID) as u32).to_be()
}

/// Tags as they stand in a frame, priorities and all, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tags(pub u64);

impl Tags {
    /// No tag.
    pub const NONE: Self = Self(0);

    /// Of words as they stand in memory; 0 for none.
    #[inline(always)]
    pub const fn new(outer: u32, inner: u32) -> Self {
        Self(outer as u64 | (inner as u64) << u32::BITS)
    }

    /// The outer tag, or 0.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the first of two words")]
    pub const fn outer(self) -> u32 {
        self.0 as u32
    }

    /// The inner one of two tags, or 0.
    #[inline(always)]
    pub const fn inner(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    /// Bytes of them in a frame.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "compared with `NONE`")]
    pub const fn len(self) -> u32 {
        match (self.outer(), self.inner()) {
            (0, _) => 0,
            (_, 0) => TAG_LEN,
            (..) => 2 * TAG_LEN,
        }
    }

    /// Whether a word of a frame, where an `EtherType` may stand, is a tag.
    #[inline(always)]
    pub const fn is_tag(word: u32) -> bool {
        let kind = u32::from_be(word) >> u16::BITS;
        kind == CUSTOMER as u32 || kind == SERVICE as u32
    }
}

plain_data!(Vlans);

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<Vlan> = Some(Vlan {
        id: 100,
        service: false,
    });
    const OUTER: Option<Vlan> = Some(Vlan {
        id: 4094,
        service: true,
    });
    const PRIORITY_ONLY: Option<Vlan> = Some(Vlan {
        id: 0,
        service: false,
    });

    #[test]
    fn tags_and_vlans_convert_both_ways() {
        let cases: [(Option<Vlan>, Option<Vlan>, &[u8]); 5] = [
            (None, None, &[]),
            (ONE, None, &[0x81, 0, 0, 100]),
            (PRIORITY_ONLY, None, &[0x81, 0, 0, 0]),
            (OUTER, ONE, &[0x88, 0xa8, 0x0f, 0xfe, 0x81, 0, 0, 100]),
            (ONE, OUTER, &[0x81, 0, 0, 100, 0x88, 0xa8, 0x0f, 0xfe]),
        ];
        for (outer, inner, bytes) in cases {
            let mut words = bytes.chunks_exact(4).map(|tag| {
                let word = u32::from_ne_bytes(tag.try_into().unwrap());
                assert!(Tags::is_tag(word));
                word
            });
            let tags = Tags::new(words.next().unwrap_or(0), words.next().unwrap_or(0));
            let vlans = Vlans::new(outer, inner).unwrap();
            assert_eq!(vlans.tags(), tags);
            assert_eq!(Vlans::of_tags(tags), vlans);
            assert_eq!(vlans.get(), (outer, inner));
        }
        assert_eq!(Vlans::new(None, ONE), None);
    }

    #[test]
    fn priority_is_no_part_of_a_vlan() {
        let tags = Tags::new(u32::from_ne_bytes([0x81, 0, 0xf0, 100]), 0);
        assert_eq!(Vlans::of_tags(tags), Vlans::new(ONE, None).unwrap());
    }

    #[test]
    fn other_bytes_are_not_taken_for_tags() {
        for kind in [[8, 0], [0x86, 0xdd], [0x91, 0], [8, 6], [0, 0]] {
            assert!(!Tags::is_tag(u32::from_ne_bytes([kind[0], kind[1], 0, 100])));
        }
    }
}
