//! What `holdfast-pki` promises, tried with good and bad requests, certificates, chains and bundles.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should stop there"
)]

mod admins;
mod bundle;
mod chain;
mod csr;
mod export;
mod given;
mod interop;
mod issue;
mod refused;
mod rotation;
mod world;
