//! See `holdfast_fuzz::token`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::token(data));
