//! Atomic operations on values of maps, for which the library has none on this target.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// Flow tables allocate an entry when a flow begins: a million idle entries of two families would cost 300 MB.
pub(crate) const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Writes `new` where `old` stands; whether it stood there. As [`fetch_add`].
///
/// # Safety
///
/// `value` may be read and written, by atomic access only.
#[inline(always)]
pub(crate) unsafe fn compare_exchange(value: *mut u64, old: u64, new: u64) -> bool {
    let mut seen = old;
    // SAFETY: by the contract.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({value} + 0, r0, {new})",
            value = in(reg) value,
            new = in(reg) new,
            inout("r0") seen,
            options(nostack)
        );
    }
    seen == old
}

/// Adds to a value that other CPUs change too, and returns what it was before. The library has no such operation for
/// this target; the instruction is there since Linux 5.12.
///
/// # Safety
///
/// `value` may be read and written, by atomic access only.
#[inline(always)]
pub(crate) unsafe fn fetch_add(value: *mut u64, mut addend: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        core::arch::asm!(
            "{addend} = atomic_fetch_add((u64 *)({value} + 0), {addend})",
            value = in(reg) value,
            addend = inout(reg) addend,
            options(nostack)
        );
    }
    addend
}
