//! See `holdfast_fuzz::state`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::state(data));
