//! Internet checksum arithmetic (RFC 1071, RFC 1624) as a value: sums of 16-bit words that are folded once.
//!
//! Words are taken as they stand in memory; one's complement sums do not care about byte order as long as all words
//! share one (RFC 1071 section 2 (B)).

/// A one's complement sum of 16-bit words, not folded yet. Holds more than four billion words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit word.
    #[inline(always)]
    pub const fn add(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word: the same as adding its halves, since 2^16 is 1 modulo 2^16 - 1.
    #[inline(always)]
    pub const fn add32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Takes a 16-bit word away.
    #[inline(always)]
    pub const fn sub(self, word: u16) -> Self {
        self.add(!word)
    }

    /// Takes a 32-bit word away.
    #[inline(always)]
    pub const fn sub32(self, word: u32) -> Self {
        self.add32(!word)
    }

    /// Adds another sum.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The folded 16-bit sum.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) as u16
    }
}

/// The checksum field after its covered words changed by `delta` (a folded sum of new words minus old ones).
/// RFC 1624 equation 3: `HC' = ~(~HC + ~m + m')`.
///
/// Wrong where all covered words are zero afterwards: it gives 0 there, and receivers want 0xffff. An IPv4 header (version)
/// and a TCP or ICMPv6 packet (protocol number in the pseudo header) always have a word that is not zero; for other data
/// there is [`update_not_zero`].
///
/// ```
/// use lb_common::csum::{Sum, update};
///
/// // Two words are covered; then the second one changes from 0x0800 to 0x0050.
/// let before = !Sum::ZERO.add(0x4500).add(0x0800).fold();
/// let delta = Sum::ZERO.add(0x0050).sub(0x0800).fold();
/// assert_eq!(update(before, delta), !Sum::ZERO.add(0x4500).add(0x0050).fold());
/// ```
#[inline(always)]
pub const fn update(field: u16, delta: u16) -> u16 {
    !Sum::ZERO.add(!field).add(delta).fold()
}

/// Like [`update`], with 0xffff for 0: the same number in one's complement, and the only form that a receiver accepts
/// over words that are all zero. For ICMPv4, whose echo reply may have no other (RFC 792), and for UDP, where 0 means
/// no checksum (RFC 768).
#[inline(always)]
pub const fn update_not_zero(field: u16, delta: u16) -> u16 {
    match update(field, delta) {
        0 => u16::MAX,
        other => other,
    }
}

/// The field of a UDP packet as [`update_not_zero`] gives it; one without a checksum stays without.
#[inline(always)]
pub const fn update_udp(field: u16, delta: u16) -> u16 {
    if field == 0 {
        return 0;
    }
    update_not_zero(field, delta)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(words: &[u16]) -> u16 {
        !words.iter().fold(Sum::ZERO, |sum, word| sum.add(*word)).fold()
    }

    /// A receiver's check of a field (RFC 1071 section 1).
    fn accepts(words: &[u16], field: u16) -> bool {
        let sum = words
            .iter()
            .fold(Sum::ZERO.add(field), |sum, word| sum.add(*word));
        sum.fold() == u16::MAX
    }

    /// Words of which many are zero, so that all of them often are.
    fn sparse() -> impl Strategy<Value = u16> {
        prop_oneof![4 => Just(0), 1 => Just(u16::MAX), 1 => any::<u16>()]
    }

    proptest! {
        #[test]
        fn incremental_update_equals_full_recomputation(
            mut words in proptest::collection::vec(any::<u16>(), 2..40),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 1..8),
        ) {
            // A packet's checksummed words are never all zero, the one case in which RFC 1624 leaves two answers.
            words[0] |= 1;
            let before = full(&words);
            let mut delta = Sum::ZERO;
            for (index, new) in changes {
                let place = 1 + index.index(words.len() - 1);
                delta = delta.sub(words[place]).add(new);
                words[place] = new;
            }
            prop_assert_eq!(update(before, delta.fold()), full(&words));
        }

        /// For any words before and after, also if all become zero.
        #[test]
        fn a_receiver_accepts_an_update_that_is_not_zero(
            mut words in proptest::collection::vec(sparse(), 1..6),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), sparse()), 1..8),
            other_form: bool,
        ) {
            let before = match full(&words) {
                0 if other_form => u16::MAX,
                field => field,
            };
            let mut delta = Sum::ZERO;
            for (index, new) in changes {
                let place = index.index(words.len());
                delta = delta.sub(words[place]).add(new);
                words[place] = new;
            }
            let field = update_not_zero(before, delta.fold());
            prop_assert!(accepts(&words, field), "{field:04x} over {words:04x?}");
            prop_assert_ne!(field, 0);
            let udp = update_udp(before, delta.fold());
            prop_assert_eq!(udp, if before == 0 { 0 } else { field });
        }

        #[test]
        fn wide_words_count_as_their_halves(word: u32) {
            #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
            let halves = Sum::ZERO.add(word as u16).add((word >> 16) as u16);
            prop_assert_eq!(Sum::ZERO.add32(word).fold(), halves.fold());
        }
    }
}
