//! See `holdfast_fuzz::memory`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::memory(data));
