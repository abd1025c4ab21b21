//! Budgets at work. Who is refused has only been read for, so that CPUs under a flood share what they look at.

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use lb_common::{
    budget::{Budget, take},
    limits::{ECHO_BURST, ECHO_RATE, MESSAGE_BURST, MESSAGE_RATE},
    reason::Reason,
    service::ServiceId,
};

use crate::maps::{atomic::compare_exchange, guards};

/// Times that a CPU tries to take from a bucket while others do. All of them lost: that many others were admitted.
const TAKE_TRIES: u32 = 8;

/// Whether one more ICMP message may be sent about packets to a service.
#[inline(always)]
pub(crate) fn admit_message(service: ServiceId) -> Result<bool, Reason> {
    const BUDGET: Budget = Budget::new(MESSAGE_RATE, MESSAGE_BURST);
    let buckets = guards::buckets(service)?;
    // SAFETY: a field of the map's value.
    Ok(unsafe { take_from(&raw mut (*buckets).messages, coarse_now(), BUDGET) })
}

/// Whether one more echo request to the address of a service may be answered.
#[inline(always)]
pub(crate) fn admit_echo(service: ServiceId) -> Result<bool, Reason> {
    const BUDGET: Budget = Budget::new(ECHO_RATE, ECHO_BURST);
    let buckets = guards::buckets(service)?;
    // SAFETY: a field of the map's value.
    Ok(unsafe { take_from(&raw mut (*buckets).echoes, coarse_now(), BUDGET) })
}

/// Takes one out of a bucket that other CPUs take from, too; whether there was one.
///
/// # Safety
///
/// `bucket` may be read and written, by atomic access only.
#[inline(always)]
pub(crate) unsafe fn take_from(bucket: *mut u64, now: u64, budget: Budget) -> bool {
    for _ in 0..TAKE_TRIES {
        // SAFETY: by the contract.
        let full_at = unsafe { ptr::read_volatile(bucket) };
        let Some(next) = take(full_at, now, budget) else {
            return false;
        };
        // SAFETY: by the contract.
        if unsafe { compare_exchange(bucket, full_at, next) } {
            return true;
        }
    }
    false
}

/// CLOCK_MONOTONIC as of the kernel's last tick, in nanoseconds, for half the price: for budgets of which a burst takes
/// many ticks to come back.
#[inline(always)]
fn coarse_now() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// CLOCK_MONOTONIC in nanoseconds. Not the coarse one: some milliseconds are a hundred flows at times.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}
