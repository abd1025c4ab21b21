//! Random numbers for jitter: reproducible from a seed, so that decisions stay pure. And the hash that phases come from.

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
        finish(self.0)
    }

    /// Uniform in `0..=most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        // 32 random bits are a share of 2^32; no duration in use here (a day at most) overflows.
        let share = (self.next() >> 32) as f64 / f64::from(u32::MAX);
        most.mul_f64(share)
    }
}

/// SplitMix64's output function.
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hash of `parts`, the same in every process and version: 64-bit FNV-1a over parts and their lengths, its bits mixed.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = parts.iter().fold(BASIS, |hash, part| {
        let length = part.len().to_be_bytes();
        length.iter().chain(part.iter()).fold(hash, step)
    });
    finish(hash)
}
