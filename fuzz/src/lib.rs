//! What the fuzzer tries: bytes from a hostile network, disk or person must be refused or mean exactly what they say.
//!
//! One function a target. Each states its law as an assertion; "does not panic" is always one of them. The same laws are
//! driven for a moment by every `make test`, with the samples of `tests/tests/laws.rs` as seeds.
//!
//! `cd fuzz && ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 cargo fuzz run TARGET -- -max_total_time=20` (cargo-fuzz 0.13).
//! The leak checker is off because it cannot read the guard pages round the secrets that are still held at exit.

mod backups;
mod files;
mod given;
mod sent;
mod shown;
mod stored;

pub use backups::backup;
pub use files::files;
pub use given::{config, image, layer, pkcs11};
pub use sent::{CSR, assign, boxes, csr, note, peer, record, signed_file, statement, strict, token, trust};
pub use shown::chain;
pub use stored::{anchor, command, ident, identity, memory, records, slots, state, unlock_chain};

#[allow(dead_code, reason = "the tests use all of it, the fuzzer only the honest scene")]
#[path = "../../orchestrator/core/tests/verify/world/mod.rs"]
mod world;

/// The honest bytes with sparse damage: pairs of (distance, mask), XORed anywhere. So a fuzzer starts where it hurts, and
/// not before a checksum, a signature or a magic number that it cannot guess.
fn damaged(honest: &[u8], pairs: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    let mut at = 0;
    for pair in pairs.chunks_exact(2) {
        at = (at + 1 + usize::from(pair[0])) % bytes.len();
        bytes[at] ^= pair[1];
    }
    bytes
}

/// The first line of a golden file in hex, or all its lines.
fn unhex(golden: &str, lines: usize) -> Vec<u8> {
    let digits: Vec<u8> = golden.lines().take(lines).flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}
