//! The service index: the hash of a key is a place, whose entry names the record of the service, so that a look-up
//! hashes only the key and calls no kernel function. The tables by key are read only for shared places.
//!
//! | entry | meaning |
//! |---|---|
//! | [`Holder::NONE`] | no service's key has this place |
//! | [`Holder::record`] | one key has; if its record has the packet's key, it is the service |
//! | [`Holder::SHARED`] | several keys have: look in the table by key |
//!
//! A record does not change while an entry names it: a changed service gets another record, then the entry names that
//! one. So a packet sees a service as before a change, or as after it.

use crate::{
    addr::NetAddr,
    limits::MAX_SERVICES,
    plain_data,
    service::{SPREAD_BITS, Service, ServiceKeyV4, ServiceKeyV6},
};

/// Places: sixteen times as many as services.
pub const PLACES: u32 = 1 << 16;
/// Words of the map of places.
pub const PLACE_WORDS: u32 = PLACES / IN_WORD;
/// Records: twice as many as services, so that a record is free for each change.
pub const RECORDS: u32 = 2 * MAX_SERVICES;
/// Places in a word.
const IN_WORD: u32 = 4;

/// Number of a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(u32);

const _: () = assert!(1 << SPREAD_BITS == PLACES);

impl ServiceKeyV4 {
    /// Its place among services.
    #[inline(always)]
    pub const fn place(&self) -> Place {
        Place::new(self.spread())
    }
}

impl ServiceKeyV6 {
    /// Its place among services.
    #[inline(always)]
    pub const fn place(&self) -> Place {
        Place::new(self.spread())
    }
}

impl Place {
    /// The place of a number below [`PLACES`].
    #[inline(always)]
    pub const fn new(number: u32) -> Self {
        Self(number % PLACES)
    }

    /// The index of its word, below [`PLACE_WORDS`].
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0 / IN_WORD
    }

    #[inline(always)]
    const fn shift(self) -> u32 {
        self.0 % IN_WORD * u16::BITS
    }

    /// Its entry in the word `word`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a part of it")]
    pub const fn holder(self, word: u64) -> Holder {
        Holder((word >> self.shift()) as u16)
    }

    /// The entries in a word.
    pub fn holders(word: u64) -> impl Iterator<Item = Holder> {
        (0..IN_WORD).map(move |place| Self(place).holder(word))
    }

    /// The word with something else in this place.
    pub const fn set(self, word: u64, holder: Holder) -> u64 {
        let kept = word & !((u16::MAX as u64) << self.shift());
        kept | (holder.0 as u64) << self.shift()
    }
}

/// An index entry. Only [`Self::NONE`] has a byte of 0, so that a word read during the kernel's copy is never
/// [`Self::NONE`] by mistake; comparing the key detects any other wrong value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder(u16);

/// Bits of a record's number in the lower byte.
const LOW_BITS: u32 = 7;
/// One bit of each byte.
const MARKS: u16 = 0x8080;

impl Holder {
    /// No service's key has this place.
    pub const NONE: Self = Self(0);
    /// Several services' keys have this place.
    pub const SHARED: Self = Self(u16::MAX);

    /// One service's key has this place, and its record this number.
    pub const fn of_record(record: u16) -> Self {
        Self(MARKS | ((record >> LOW_BITS) << u8::BITS) | (record % (1 << LOW_BITS)))
    }

    /// Whether no service's key has this place.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The number of a record; an invalid number if the place is shared.
    #[inline(always)]
    pub const fn record(self) -> u32 {
        let bits = self.0 & !MARKS;
        (((bits >> u8::BITS) << LOW_BITS) | (bits % (1 << LOW_BITS))) as u32
    }
}

const _: () = assert!(
    RECORDS <= Holder::SHARED.record(),
    "a shared place has no valid record"
);

/// A service with its key.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceRecord {
    /// The service's address.
    address: NetAddr,
    /// Its port and protocol, and its family.
    rest: u32,
    /// Zero.
    pad: u32,
    /// The service.
    pub service: Service,
}

/// Port and protocol as one word, which is another for each family.
#[inline(always)]
const fn rest(port: u16, protocol: u8, family: u8) -> u32 {
    port as u32 | (protocol as u32) << 16 | (family as u32) << 24
}

impl ServiceRecord {
    /// The record of an IPv4 service.
    pub const fn v4(key: &ServiceKeyV4, service: Service) -> Self {
        Self {
            address: NetAddr::from_v4(key.address),
            rest: rest(key.port.0, key.protocol, 4),
            pad: 0,
            service,
        }
    }

    /// The record of an IPv6 service.
    pub const fn v6(key: &ServiceKeyV6, service: Service) -> Self {
        Self {
            address: NetAddr(key.address.0),
            rest: rest(key.port.0, key.protocol, 6),
            pad: 0,
            service,
        }
    }

    /// Whether it has this IPv4 key.
    #[inline(always)]
    pub const fn is_v4(&self, key: &ServiceKeyV4) -> bool {
        // The family is part of `rest`, so the other words of the address are fixed.
        let differs = (self.address.v4().0 ^ key.address.0) | (self.rest ^ rest(key.port.0, key.protocol, 4));
        differs == 0
    }

    /// Whether it has this IPv6 key.
    #[inline(always)]
    pub const fn is_v6(&self, key: &ServiceKeyV6) -> bool {
        let ([a, b], [c, d]) = (self.address.v6().halves(), key.address.halves());
        let rest = self.rest ^ rest(key.port.0, key.protocol, 6);
        (a ^ c) | (b ^ d) | rest as u64 == 0
    }
}

const _: () = assert!(size_of::<ServiceRecord>() == 40);

plain_data!(ServiceRecord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_a_holder_of_its_own_without_an_empty_byte() {
        for record in (0..).take(RECORDS as usize) {
            let holder = Holder::of_record(record);
            assert_eq!(holder.record(), u32::from(record));
            assert!(holder.0.to_ne_bytes().iter().all(|byte| *byte != 0));
            assert_ne!(holder, Holder::SHARED);
        }
        assert!(Holder::SHARED.record() >= RECORDS && !Holder::SHARED.is_none());
        assert!(Holder::NONE.is_none());
    }

    #[test]
    fn places_of_one_word_do_not_disturb_each_other() {
        let mut words = [0; 2];
        let holder = |number: u32| Holder::of_record(100 + u16::try_from(number).unwrap());
        for number in 0..2 * IN_WORD {
            let place = Place::new(number);
            let word = &mut words[place.word() as usize];
            *word = place.set(*word, holder(number));
        }
        words[0] = Place::new(2).set(words[0], Holder::NONE);
        for number in 0..2 * IN_WORD {
            let place = Place::new(number);
            let expected = if number == 2 { Holder::NONE } else { holder(number) };
            assert_eq!(place.holder(words[place.word() as usize]), expected);
        }
    }
}
