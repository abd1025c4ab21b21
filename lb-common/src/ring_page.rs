//! How rings stand in the kernel: in pages of one size, so that a program reads a slot without a call. As many entries of
//! the map of rings belong to each ring as the largest has pages; its first pages stand in the first of them.
//!
//! A packet reads one slot, so pages may be replaced one after the other.

use crate::{
    limits::{MAX_RINGS, RING_SIZE_MAX},
    plain_data,
    ring_slot::RingSlot,
    service::RingId,
};

/// Slots of a page: the rings of most services have one page, and little of it is left over.
pub const PAGE_SLOTS: u32 = 2_048;
/// Entries of each ring.
pub const RING_PAGES: u32 = pages(RING_SIZE_MAX);
/// Entries of the map of rings.
pub const RING_ENTRIES: u32 = MAX_RINGS * RING_PAGES;

/// A page: the only value of an array.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingPage {
    slots: [RingSlot; PAGE_SLOTS as usize],
    /// Slots of the whole ring.
    ring_size: u32,
    /// Zero.
    pad: u32,
}

impl Default for RingPage {
    fn default() -> Self {
        Self {
            slots: [RingSlot::default(); PAGE_SLOTS as usize],
            ring_size: 0,
            pad: 0,
        }
    }
}

/// Pages of a ring of `slots` slots.
pub const fn pages(slots: u32) -> u32 {
    slots.div_ceil(PAGE_SLOTS)
}

/// The entry of a ring's first page.
#[inline(always)]
pub const fn first_entry(ring: RingId) -> u32 {
    ring.0 as u32 * RING_PAGES
}

/// The entry of the page that has a ring's slot.
#[inline(always)]
pub const fn entry(ring: RingId, slot: u32) -> u32 {
    first_entry(ring) + slot / PAGE_SLOTS
}

impl RingPage {
    /// The pages of a ring.
    pub fn of_ring(slots: &[RingSlot]) -> impl Iterator<Item = Self> {
        let ring_size = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        slots.chunks(PAGE_SLOTS as usize).map(move |of_page| {
            let mut page = Self {
                ring_size,
                ..Self::default()
            };
            for (to, from) in page.slots.iter_mut().zip(of_page) {
                *to = *from;
            }
            page
        })
    }

    /// The slots of the ring that has these pages; `None` if they are not pages of one ring, all of them and in order.
    pub fn ring<'a>(pages: &'a [Self]) -> Option<impl Iterator<Item = RingSlot> + 'a> {
        let first = pages.first()?;
        let whole = pages.len() == first.ring_pages() as usize;
        let size = first.ring_size;
        (whole && pages.iter().all(|page| page.ring_size == size))
            .then(|| pages.iter().flat_map(|page| page.slots).take(size as usize))
    }

    /// How many pages the ring has.
    pub const fn ring_pages(&self) -> u32 {
        pages(self.ring_size)
    }

    /// The slot of the ring with this number, which is one of this page.
    #[inline(always)]
    pub const fn slot(&self, slot: u32) -> RingSlot {
        self.slots[(slot % PAGE_SLOTS) as usize]
    }

    /// Sets the slot of the ring with this number, which is one of this page.
    pub const fn set(&mut self, slot: u32, value: RingSlot) {
        self.slots[(slot % PAGE_SLOTS) as usize] = value;
    }
}

const _: () = assert!(size_of::<RingPage>() == 4 * PAGE_SLOTS as usize + 8);

plain_data!(RingPage);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{backend::BackendId, limits::RING_SIZE_MIN};

    fn slots(size: u32) -> Vec<RingSlot> {
        (0..size)
            .map(|slot| RingSlot::from_word(slot.wrapping_mul(0x9e37_79b9)))
            .collect()
    }

    #[test]
    fn a_packet_finds_each_slot_and_the_next_daemon_the_ring() {
        for size in [RING_SIZE_MIN, 1_021, 2_039, 2_053, 4_093, RING_SIZE_MAX] {
            let slots = slots(size);
            let pages: Vec<RingPage> = RingPage::of_ring(&slots).collect();
            let ring = RingId(3);
            for (number, slot) in (0..size).zip(&slots) {
                let page = (entry(ring, number) - first_entry(ring)) as usize;
                assert_eq!(pages[page].slot(number), *slot, "slot {number} of {size}");
            }
            assert!(entry(ring, size - 1) < first_entry(RingId(4)));
            let read: Vec<RingSlot> = RingPage::ring(&pages).unwrap().collect();
            assert_eq!(read, slots);
        }
        let last = RingId(u16::try_from(MAX_RINGS - 1).unwrap());
        assert_eq!(entry(last, RING_SIZE_MAX), RING_ENTRIES - 1);
    }

    #[test]
    fn pages_of_several_rings_are_no_ring() {
        let pages: Vec<RingPage> = RingPage::of_ring(&slots(4_093)).collect();
        let other: Vec<RingPage> = RingPage::of_ring(&slots(4_091)).collect();
        assert!(RingPage::ring(&pages).is_some());
        for broken in [
            &pages[..1],
            &[pages[0], other[1]],
            &[pages[0], pages[1], other[1]],
            &[],
        ] {
            assert!(RingPage::ring(broken).is_none(), "{} pages", broken.len());
        }
        let mut page = pages[1];
        page.set(2_049, RingSlot::stable(BackendId(9)));
        assert_eq!(page.slot(2_049), RingSlot::stable(BackendId(9)));
    }
}
