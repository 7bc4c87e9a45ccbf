//! See `holdfast_fuzz::note`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::note(data));
