//! X.509 for Holdfast: what a certificate may say, how one is made, and when one is believed.
//!
//! * [`names`]: the one URI name a leaf carries;
//! * [`keys`]: public keys as certificates carry them, and the port of whoever signs certificates;
//! * [`csr`]: a request is a public key with proof of possession, and nothing else;
//! * [`issue`]: roots, issuers, cross-certificates and leaves, each compared with its intent after signing;
//! * [`chain`]: when a peer's chain is believed, including what the path builder does not check;
//! * [`bundle`]: the root-signed document by which verifiers learn of new roots and statement keys;
//! * [`export`]: the trusted roots as other programs read them;
//! * [`given`]: what operators bring from outside, judged before anything depends on it;
//! * [`era`]: what takes the place of all that, signed by the operators.
//!
//! Pure: no runtime, no files, no clock, no source of entropy; time and randomness are arguments.

pub mod bundle;
pub mod chain;
pub mod csr;
pub mod era;
pub mod export;
pub mod given;
pub mod issue;
pub mod keys;
pub mod names;

mod encode;
mod facts;

pub use facts::{CertError, MAX_CERT};
