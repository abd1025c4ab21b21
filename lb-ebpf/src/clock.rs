//! The kernel's clock.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// CLOCK_MONOTONIC in whole seconds, a few milliseconds late at most.
#[inline(always)]
pub(crate) fn now_secs() -> u32 {
    const NANOS_PER_SEC: u64 = 1_000_000_000;
    #[expect(clippy::cast_possible_truncation, reason = "136 years")]
    let seconds = (coarse_nanos() / NANOS_PER_SEC) as u32;
    seconds
}

/// CLOCK_MONOTONIC in milliseconds modulo 2^32, a few late at most.
#[inline(always)]
pub(crate) fn now_millis() -> u32 {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    #[expect(clippy::cast_possible_truncation, reason = "the modulus")]
    let millis = (coarse_nanos() / NANOS_PER_MILLI) as u32;
    millis
}

#[inline(always)]
fn coarse_nanos() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}
