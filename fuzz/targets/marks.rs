//! [`lb_fuzz::marks`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lb_fuzz::marks(data));
