//! See `holdfast_fuzz::config`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::config(data));
