//! See `holdfast_fuzz::backup`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::backup(data));
