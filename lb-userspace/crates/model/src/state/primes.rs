//! Primes: the sizes that rings may have.

use lb_common::limits::{RING_SIZE_MAX, RING_SIZE_MIN};

/// Whether this is a valid ring size.
pub fn is_prime(size: u32) -> bool {
    size >= 2
        && (2..)
            .take_while(|d| d * d <= size)
            .all(|d| !size.is_multiple_of(d))
}

/// The primes that can be ring sizes nearest to `size`, below and above; the same number twice where `size` can be
/// one itself.
pub fn nearest_primes(size: u32) -> (u32, u32) {
    let size = size.clamp(RING_SIZE_MIN, RING_SIZE_MAX);
    let below = (RING_SIZE_MIN..=size).rev().find(|n| is_prime(*n));
    let above = (size..=RING_SIZE_MAX).find(|n| is_prime(*n));
    (below.unwrap_or(RING_SIZE_MIN), above.unwrap_or(RING_SIZE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_primes_enclose_a_size() {
        for (size, expected) in [
            (1_000, (997, 1_009)),
            (1_009, (1_009, 1_009)),
            (1, (251, 251)),
            (1 << 20, (131_071, 131_071)),
        ] {
            assert_eq!(nearest_primes(size), expected);
        }
    }
}
