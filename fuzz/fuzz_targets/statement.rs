//! See `holdfast_fuzz::statement`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::statement(data));
