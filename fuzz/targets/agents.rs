//! [`lb_fuzz::agents`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lb_fuzz::agents(data));
