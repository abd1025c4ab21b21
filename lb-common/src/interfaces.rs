//! Which of the daemon's interfaces a packet came in on, without a map look-up.
//!
//! The program is loaded once for all interfaces, since the kernel takes most of a start to check it. Indices of
//! interfaces may be any number, so they are spread over a table by a multiplication under which the few that there
//! are do not collide; the daemon looks for it.

use crate::limits::MAX_INTERFACES;

/// Bits of a place in the table: 16 interfaces collide with one multiplier in three.
const INDEX_BITS: u32 = 8;
/// Places of the table.
const PLACES: usize = 1 << INDEX_BITS;
/// Bytes of the whole.
const BYTES: usize = 4 + 4 * MAX_INTERFACES as usize + PLACES;
/// Multipliers that are tried: far more than are needed.
const TRIES: u32 = 1 << 16;

/// From the index of an interface to its slot; a read-only global of the program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceSlots {
    /// Odd.
    pub multiplier: u32,
    /// The interface that has a slot; 0, which none has, where it is free.
    pub indices: [u32; MAX_INTERFACES as usize],
    /// Slots, below [`MAX_INTERFACES`].
    pub slots: [u8; PLACES],
}

impl InterfaceSlots {
    /// All interfaces count in slot 0.
    pub const ONE: Self = Self {
        multiplier: 1,
        indices: [0; MAX_INTERFACES as usize],
        slots: [0; PLACES],
    };

    /// The place of an interface in `slots`: below their number.
    #[inline(always)]
    pub const fn place(ifindex: u32, multiplier: u32) -> usize {
        (ifindex.wrapping_mul(multiplier) >> (u32::BITS - INDEX_BITS)) as usize
    }

    /// The table for these interfaces, each an index and a slot. Packets from any other, which only tests send, count
    /// for the first of them. `None` if a slot is out of range, or more interfaces are given than can be served.
    pub fn of(interfaces: &[(u32, u32)]) -> Option<Self> {
        let limit = MAX_INTERFACES as usize;
        if interfaces.len() > limit || interfaces.iter().any(|(_, slot)| *slot >= MAX_INTERFACES) {
            return None;
        }
        (0..TRIES).find_map(|number| Self::with(interfaces, (2 * number + 1).wrapping_mul(0x9e37_79b9)))
    }

    fn with(interfaces: &[(u32, u32)], multiplier: u32) -> Option<Self> {
        let slot = |slot: u32| u8::try_from(slot).ok();
        let first = slot(interfaces.first().map_or(0, |(_, slot)| *slot))?;
        let mut taken = [false; PLACES];
        let mut table = Self {
            multiplier,
            indices: [0; MAX_INTERFACES as usize],
            slots: [first; PLACES],
        };
        for (ifindex, number) in interfaces {
            let place = Self::place(*ifindex, multiplier);
            if core::mem::replace(taken.get_mut(place)?, true) {
                return None;
            }
            *table.slots.get_mut(place)? = slot(*number)?;
            *table.indices.get_mut(*number as usize)? = *ifindex;
        }
        Some(table)
    }

    /// The bytes as they lie in memory.
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let (words, slots) = bytes.split_at_mut(BYTES - PLACES);
        let values = core::iter::once(&self.multiplier).chain(&self.indices);
        for (word, value) in words.chunks_exact_mut(4).zip(values) {
            word.copy_from_slice(&value.to_ne_bytes());
        }
        slots.copy_from_slice(&self.slots);
        bytes
    }
}

const _: () = assert!(size_of::<InterfaceSlots>() == BYTES);
const _: () = assert!(MAX_INTERFACES <= u8::MAX as u32 + 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slot of an interface that is there; it has it alone.
    fn own_slot(table: &InterfaceSlots, ifindex: u32) -> Option<u32> {
        let slot = slot(table, ifindex);
        (table.indices[slot as usize] == ifindex).then_some(slot)
    }

    fn slot(table: &InterfaceSlots, ifindex: u32) -> u32 {
        table.slots[InterfaceSlots::place(ifindex, table.multiplier)].into()
    }

    proptest! {
        #[test]
        fn every_interface_counts_in_its_own_slot(
            indices in proptest::collection::hash_set(any::<u32>(), 0..=MAX_INTERFACES as usize),
        ) {
            let interfaces: Vec<(u32, u32)> = indices.into_iter().zip((0..MAX_INTERFACES).rev()).collect();
            let table = InterfaceSlots::of(&interfaces).unwrap();
            for (ifindex, number) in interfaces {
                prop_assert_eq!(own_slot(&table, ifindex), Some(number));
            }
        }
    }

    #[test]
    fn interfaces_made_one_after_the_other_and_strangers_have_a_slot() {
        let interfaces: Vec<(u32, u32)> = (0..MAX_INTERFACES).map(|slot| (1000 + slot, slot)).collect();
        let table = InterfaceSlots::of(&interfaces).unwrap();
        assert!(
            interfaces
                .iter()
                .all(|(ifindex, number)| slot(&table, *ifindex) == *number)
        );
        let one = InterfaceSlots::of(&[(77, 5)]).unwrap();
        assert_eq!((slot(&one, 1), own_slot(&one, 1)), (5, None));
        assert_eq!(InterfaceSlots::of(&[(77, MAX_INTERFACES)]), None);
    }
}
