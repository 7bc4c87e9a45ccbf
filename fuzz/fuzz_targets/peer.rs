//! See `holdfast_fuzz::peer`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::peer(data));
