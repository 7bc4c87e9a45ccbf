//! See `holdfast_fuzz::record`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::record(data));
