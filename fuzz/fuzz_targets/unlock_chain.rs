//! See `holdfast_fuzz::unlock_chain`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::unlock_chain(data));
