//! Loads and stores of words at any address.

/// Loads and stores of words at any address, which the compiler makes of single bytes: it takes the target for one that
/// cannot do better. The kernel lets a program do so on each machine that we promise to run on.
macro_rules! words {
    ($($load:ident, $store:ident, $word:ty, $type:literal;)+) => {$(
        /// Loads a word `OFFSET` bytes after `from`.
        ///
        /// # Safety
        ///
        /// It can be read.
        #[inline(always)]
        #[cfg(target_arch = "bpf")]
        pub unsafe fn $load<const OFFSET: usize>(from: *const u8) -> u64 {
            let word: u64;
            // SAFETY: by the contract; nothing else is touched.
            unsafe {
                core::arch::asm!(
                    concat!("{0} = *(", $type, " *)({1} + {2})"),
                    out(reg) word, in(reg) from, const OFFSET, options(pure, readonly, nostack)
                );
            }
            word
        }

        /// Loads a word `OFFSET` bytes after `from`.
        ///
        /// # Safety
        ///
        /// It can be read.
        #[cfg(not(target_arch = "bpf"))]
        pub unsafe fn $load<const OFFSET: usize>(from: *const u8) -> u64 {
            // SAFETY: by the contract; alignment is not assumed.
            u64::from(unsafe { from.add(OFFSET).cast::<$word>().read_unaligned() })
        }

        /// Stores the low bits of a word `OFFSET` bytes after `to`.
        ///
        /// # Safety
        ///
        /// It can be written.
        #[inline(always)]
        #[cfg(target_arch = "bpf")]
        pub unsafe fn $store<const OFFSET: usize>(to: *mut u8, word: u64) {
            // SAFETY: by the contract; nothing else is touched.
            unsafe {
                core::arch::asm!(
                    concat!("*(", $type, " *)({0} + {1}) = {2}"),
                    in(reg) to, const OFFSET, in(reg) word, options(nostack)
                );
            }
        }

        /// Stores the low bits of a word `OFFSET` bytes after `to`.
        ///
        /// # Safety
        ///
        /// It can be written.
        #[cfg(not(target_arch = "bpf"))]
        #[allow(clippy::cast_possible_truncation, reason = "its low bits are stored")]
        pub unsafe fn $store<const OFFSET: usize>(to: *mut u8, word: u64) {
            // SAFETY: by the contract; alignment is not assumed.
            unsafe { to.add(OFFSET).cast::<$word>().write_unaligned(word as $word) };
        }
    )+};
}

words! {
    load64, store64, u64, "u64";
    load32, store32, u32, "u32";
    load16, store16, u16, "u16";
}
