//! See `holdfast_fuzz::records`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::records(data));
