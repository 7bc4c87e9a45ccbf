//! See `holdfast_fuzz::pkcs11`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_fuzz::pkcs11(data));
