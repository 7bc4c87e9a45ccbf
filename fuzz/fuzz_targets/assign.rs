//! See `holdfast_fuzz::assign`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::assign(data));
