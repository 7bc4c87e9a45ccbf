//! See `holdfast_fuzz::identity`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::identity(data));
