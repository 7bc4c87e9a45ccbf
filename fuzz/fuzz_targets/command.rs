//! See `holdfast_fuzz::command`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::command(data));
