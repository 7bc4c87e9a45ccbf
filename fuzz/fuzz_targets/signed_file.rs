//! See `holdfast_fuzz::signed_file`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::signed_file(data));
