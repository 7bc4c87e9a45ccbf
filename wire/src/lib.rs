//! What travels and what is stored: the generated messages and the six formats that give them authority.
//!
//! * [`statement`]: signed documents (DSSE), verified before they are decoded, re-encoded before they are believed;
//! * [`boxes`]: encryption to a public key (HPKE, RFC 9180), base and PSK mode;
//! * [`record`]: encryption at rest, one key per encryption, key-committing, full context in the AAD;
//! * [`token`]: join tokens and printable keys, greppable and checksummed;
//! * [`share`]: shares of a printable key that was split;
//! * [`signed`]: a statement in a file, on its way from signer to signer;
//! * [`charter`]: who may sign what, and how many of them; one rule for vault, node and tool;
//! * [`merkle`] and [`note`]: the transparency log's hashing (RFC 9162) and checkpoints (C2SP).
//!
//! Pure: no runtime, no files, no clock, no source of entropy; randomness is an argument.

/// The generated messages of `proto/*.proto`.
#[allow(missing_docs, clippy::all, clippy::restriction)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/holdfast.v1.rs"));
}

pub mod backup;
pub mod before;
pub mod boxes;
pub mod charter;
pub mod documents;
pub mod images;
pub mod keys;
pub mod merkle;
pub mod note;
pub mod padding;
pub mod record;
pub mod share;
pub mod signed;
pub mod specs;
pub mod statement;
pub mod strict;
pub mod tasks;
pub mod token;

mod kem;
mod seeded;

pub use seeded::Seeded;
