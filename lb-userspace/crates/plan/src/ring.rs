//! Rings: which backend owns which slot (Maglev, Eisenbud et al., NSDI 2016, section 3.4, with weights).
//!
//! Each backend has a preference list of all slots, drawn from its identity. Backends take turns; a turn takes the
//! first slot of the list that is still free. Weights decide when turns come: turn `k` of a backend of weight `w`
//! comes at time `(k + 1/2) / w`, so at any time each backend has had its share of the turns to within one (the
//! rounding of Webster and Sainte-Laguë), and taking a backend out leaves the order of all other turns as it was.

use std::{cmp::Reverse, collections::BinaryHeap, net::SocketAddr};

use lb_common::limits::{RING_SIZE_MAX, RING_SIZE_MIN};

use crate::state::primes::is_prime;

/// A backend, as input of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Decides the backend's preferences among slots; see [`identity`].
    pub identity: u64,
    /// Share of slots relative to the other backends, below 2^20; 0 takes none.
    pub weight: u32,
}

/// Why no ring can be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// Preference lists reach every slot only if the size is prime.
    #[error("ring size {0} is not a prime")]
    NotPrime(u32),
    /// Slots are numbered by `u16` in the order of the list.
    #[error("{0} backends are more than a ring can hold")]
    TooManyBackends(usize),
}

/// Sizes that [`auto_size`] chooses from: primes about four times apart, so that adding a backend rarely changes the
/// size, which would move flows that stay with an unchanged size.
const AUTO_SIZES: [u32; 6] = [RING_SIZE_MIN, 1_021, 4_093, 16_381, 65_521, RING_SIZE_MAX];

/// Minimum slots for each backend: with equal weights, a rounding error of one slot is then 1 % of a share. The error
/// is never more than one slot, with any weights.
pub const SLOTS_PER_BACKEND: u32 = 100;

/// Unit of the time at which turns come, for a backend of weight 1. Large enough that the rounding of a turn's
/// length never adds up to a turn (weights are below 2^20, ring sizes below 2^17), small enough that the last turn of the
/// largest ring fits 64 bits.
const TURN_UNIT: u64 = 1 << 44;

/// The slots' owners, as indexes into `shares`; empty if no share has a weight.
///
/// The result depends on identities and weights alone, not on the order of `shares`. A share with a weight gets at
/// least one slot as long as there are as many slots as shares. Takes a time in proportion to `size * ln(size)`.
///
/// Taking a backend out of a ring of a size that [`auto_size`] gives moves, beside its own slots, at most 5 % of all
/// slots: 0.5 to 2.5 % in the mean, most with few backends in a small ring.
///
/// ```
/// use lb_plan::ring::{Share, identity, maglev};
///
/// let share = |address: &str, weight| Share { identity: identity(address.parse().unwrap()), weight };
/// let ring = maglev(&[share("10.0.0.1:80", 1), share("10.0.0.2:80", 3)], 251).unwrap();
/// assert_eq!(ring.iter().filter(|owner| **owner == 0).count(), 63, "a quarter of 251 slots");
/// ```
///
/// # Errors
/// [`RingError`]
pub fn maglev(shares: &[Share], size: u32) -> Result<Vec<u16>, RingError> {
    let turns = turns(shares, size)?;
    let mut walks: Vec<Walk> = shares
        .iter()
        .map(|share| Walk::new(share.identity, size))
        .collect();
    let mut owners: Vec<Option<u16>> = vec![None; size as usize];
    for index in turns {
        let walk = &mut walks[usize::from(index)];
        while owners[walk.slot as usize].is_some() {
            walk.advance(size);
        }
        owners[walk.slot as usize] = Some(index);
    }
    Ok(owners.into_iter().flatten().collect())
}

/// The owners of slots that new flows take one after the other, instead of by their hash: a smooth weighted
/// round-robin, in which a backend's turns are as far apart as its weight allows. Empty if no share has a weight.
///
/// # Errors
/// [`RingError`]
pub fn in_turn(shares: &[Share], size: u32) -> Result<Vec<u16>, RingError> {
    turns(shares, size).map(Iterator::collect)
}

/// The backend of each turn, `size` times; empty if no share has a weight.
fn turns(shares: &[Share], size: u32) -> Result<impl Iterator<Item = u16>, RingError> {
    if !is_prime(size) {
        return Err(RingError::NotPrime(size));
    }
    if shares.len() > usize::from(u16::MAX) {
        return Err(RingError::TooManyBackends(shares.len()));
    }
    // Every backend's first turn comes at once, so that a tiny weight is not rounded down to 0.
    let mut turns: BinaryHeap<_> = (0..u16::MAX)
        .zip(shares)
        .filter(|(_, share)| share.weight > 0)
        .map(|(index, share)| Reverse((0, share.identity, index)))
        .collect();
    let next = move |_| {
        let mut turn = turns.peek_mut()?;
        let Reverse((time, _, index)) = &mut *turn;
        let length = TURN_UNIT / u64::from(shares[usize::from(*index)].weight);
        *time += if *time == 0 { length + length / 2 } else { length };
        Some(*index)
    };
    Ok((0..size).map_while(next))
}

/// A preference list, walked in steps of `skip` from a first slot: with a prime size it meets every slot once.
struct Walk {
    slot: u32,
    skip: u32,
}

impl Walk {
    fn new(identity: u64, size: u32) -> Self {
        let below = |hash: u64, bound: u32| {
            // Multiply and shift: the high half of a product with a number below 2^32 is below `bound`.
            u32::try_from((u128::from(hash) * u128::from(bound)) >> 64).unwrap_or(0)
        };
        Self {
            slot: below(mix(identity ^ 0x6f66_6673_6574), size),
            skip: below(mix(identity ^ 0x736b_6970), size - 1) + 1,
        }
    }

    fn advance(&mut self, size: u32) {
        self.slot += self.skip;
        if self.slot >= size {
            self.slot -= size;
        }
    }
}

/// Identity of a backend on every node and after every restart: a hash of address and port.
pub fn identity(address: SocketAddr) -> u64 {
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    }
    .to_bits();
    [(ip >> 64), ip & u128::from(u64::MAX), u128::from(address.port())]
        .into_iter()
        .fold(0, |state, word| mix(state ^ u64::try_from(word).unwrap_or(0)))
}

/// A bijection of 64 bits that spreads every input bit (splitmix64; Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", 2014). Its constants decide where flows go: changing them moves flows.
const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The ring size for `backends` backends, with the present size `current`, if any: at least [`SLOTS_PER_BACKEND`] slots
/// for each, within [`RING_SIZE_MIN`] and [`RING_SIZE_MAX`]. A ring that has become too large keeps its size until half
/// as many backends again would fit a smaller one, so that a backend that comes and goes does not resize the ring.
/// Count all backends, with any health and weight: another size moves flows of unaffected backends.
pub fn auto_size(backends: usize, current: Option<u32>) -> u32 {
    let fitting = |backends: usize| {
        let wanted = u64::from(SLOTS_PER_BACKEND) * u64::try_from(backends).unwrap_or(u64::MAX >> 32);
        let mut sizes = AUTO_SIZES.into_iter();
        sizes
            .find(|size| u64::from(*size) >= wanted)
            .unwrap_or(RING_SIZE_MAX)
    };
    let size = fitting(backends);
    let kept = current.filter(|current| AUTO_SIZES.contains(current));
    match kept {
        Some(current) if current > size && fitting(backends + backends.div_ceil(2)) >= current => current,
        Some(_) | None => size,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[u32]) -> Vec<Share> {
        (1..)
            .zip(weights)
            .map(|(n, weight)| Share {
                identity: mix(n),
                weight: *weight,
            })
            .collect()
    }

    fn counts(ring: &[u16], backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        for owner in ring {
            counts[usize::from(*owner)] += 1;
        }
        counts
    }

    /// Owners as identities, so that rings over different lists compare.
    fn by_identity(shares: &[Share], size: u32) -> Vec<u64> {
        maglev(shares, size)
            .unwrap()
            .into_iter()
            .map(|i| shares[usize::from(i)].identity)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_backend_gets_its_weights_share(
            weights in proptest::collection::vec(prop_oneof![1..=10_u32, 1..=65_535_u32], 1..40),
            size in prop::sample::select(AUTO_SIZES.to_vec()),
        ) {
            let ring = maglev(&shares(&weights), size).unwrap();
            prop_assert_eq!(ring.len(), size as usize);
            let sum: u32 = weights.iter().sum();
            let lifted = weights.iter().filter(|weight| u64::from(**weight) * u64::from(size) < u64::from(sum)).count() as f64;
            for (got, weight) in counts(&ring, weights.len()).into_iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(sum);
                let wanted = f64::from(size) * share;
                // Its own rounding, its share of the others', and one slot for each backend that would have had none.
                let others = weights.len() as f64 / 2.0 * share;
                prop_assert!((f64::from(got) - wanted).abs() < 1.0 + others + lifted, "{} of {}", got, wanted);
                prop_assert!(got > 0);
            }
        }

        #[test]
        fn auto_size_keeps_every_share_within_one_percent_of_an_equal_one(
            weights in proptest::collection::vec(1..=100_u32, 1..100),
        ) {
            let size = auto_size(weights.len(), None);
            let sum: u32 = weights.iter().sum();
            for (got, weight) in counts(&maglev(&shares(&weights), size).unwrap(), weights.len()).into_iter().zip(&weights) {
                let wanted = f64::from(size) * f64::from(*weight) / f64::from(sum);
                let off = (f64::from(got) - wanted).abs() * weights.len() as f64 / f64::from(size);
                prop_assert!(off < 0.02, "{} of {} in {}", got, wanted, size);
            }
        }

        #[test]
        fn ring_does_not_depend_on_the_order_of_addition(
            weights in proptest::collection::vec(0..=200_u32, 1..30),
            seed: u64,
        ) {
            let listed = shares(&weights);
            let mut shuffled = listed.clone();
            shuffled.sort_by_key(|share| mix(share.identity ^ seed));
            prop_assert_eq!(by_identity(&listed, 1_021), by_identity(&shuffled, 1_021));
        }
    }

    /// The bound that the documentation states, over backend counts from 2 to 200 and equal or mixed weights.
    #[test]
    fn removing_a_backend_moves_few_slots_of_others() {
        let mut worst: f64 = 0.0;
        for (backends, size) in [
            (2, 251),
            (3, 1_021),
            (10, 1_021),
            (40, 4_093),
            (100, 16_381),
            (200, 65_521),
        ] {
            for mixed in [false, true] {
                let weights: Vec<u32> = (0..backends).map(|n| if mixed { 1 + n % 5 } else { 1 }).collect();
                let before = shares(&weights);
                let old = by_identity(&before, size);
                for gone in [0, before.len() / 2, before.len() - 1] {
                    let mut after = before.clone();
                    let gone = after.remove(gone).identity;
                    let new = by_identity(&after, size);
                    let moved = old
                        .iter()
                        .zip(&new)
                        .filter(|(o, n)| **o != gone && o != n)
                        .count();
                    worst = worst.max(moved as f64 / f64::from(size));
                }
            }
        }
        println!("worst share of slots that moved without need: {worst:.4}");
        assert!(worst <= 0.05, "{worst}");
    }

    #[test]
    fn turns_of_a_backend_are_spread_by_its_weight() {
        let ring = in_turn(&shares(&[5, 1, 2]), 251).unwrap();
        assert_eq!(in_turn(&shares(&[0]), 251), Ok(Vec::new()));
        for (window, backend, least, most) in [(16, 0, 9, 11), (16, 1, 1, 3), (16, 2, 3, 5), (2, 2, 0, 1)] {
            for turns in ring[8..].windows(window) {
                let got = turns.iter().filter(|owner| **owner == backend).count();
                assert!(
                    (least..=most).contains(&got),
                    "{backend} has {got} of {window} turns"
                );
            }
        }
    }

    #[test]
    fn weight_zero_owns_no_slot_and_no_backends_make_an_empty_ring() {
        assert_eq!(maglev(&[], 251), Ok(Vec::new()));
        assert_eq!(maglev(&shares(&[0, 0]), 251), Ok(Vec::new()));
        assert_eq!(counts(&maglev(&shares(&[0, 7, 0]), 251).unwrap(), 3), [0, 251, 0]);
    }

    #[test]
    fn a_size_that_is_no_prime_is_refused() {
        assert_eq!(maglev(&shares(&[1]), 1_000), Err(RingError::NotPrime(1_000)));
        assert_eq!(maglev(&shares(&[1]), 0), Err(RingError::NotPrime(0)));
    }

    #[test]
    fn auto_sizes_are_primes_and_follow_the_number_of_backends() {
        assert!(AUTO_SIZES.into_iter().all(is_prime) && AUTO_SIZES.is_sorted());
        for (backends, size) in [
            (0, 251),
            (1, 251),
            (2, 251),
            (3, 1_021),
            (10, 1_021),
            (11, 4_093),
            (40, 4_093),
            (41, 16_381),
            (5_000, 131_071),
        ] {
            assert_eq!(auto_size(backends, None), size, "{backends}");
        }
    }

    /// A backend that is added and removed again, day by day, must not move the flows of all others each time.
    #[test]
    fn a_ring_shrinks_only_when_far_fewer_backends_are_left() {
        for (backends, current, size) in [
            (11, 1_021, 4_093),
            (10, 4_093, 4_093),
            (7, 4_093, 4_093),
            (6, 4_093, 1_021),
            (2, 1_021, 1_021),
            (1, 1_021, 251),
            (10, 65_521, 1_021),
            // Not a size of its own: the operator had set it.
            (10, 4_091, 1_021),
            (0, 0, 251),
        ] {
            assert_eq!(
                auto_size(backends, Some(current)),
                size,
                "{backends} after {current}"
            );
        }
    }

    /// Where flows go is part of the contract between nodes of different versions.
    #[test]
    fn identities_and_slots_stay_as_they_are() {
        let backends: Vec<SocketAddr> = ["10.0.0.11:8080", "10.0.0.12:8080", "[2001:db8::1]:80"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        let list: Vec<Share> = backends
            .iter()
            .map(|a| Share {
                identity: identity(*a),
                weight: 1,
            })
            .collect();
        let ring = maglev(&list, 251).unwrap();
        assert_eq!(ring[..16], [0, 0, 1, 0, 0, 0, 0, 2, 2, 2, 2, 2, 1, 2, 2, 1]);
    }
}
