//! See `holdfast_fuzz::slots`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::slots(data));
