//! Random numbers for jitter: reproducible from a seed, so that decisions stay pure.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..=most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        // 32 random bits are a share of 2^32; no duration in use here (a day at most) overflows.
        let share = (self.next() >> 32) as f64 / f64::from(u32::MAX);
        most.mul_f64(share)
    }
}
