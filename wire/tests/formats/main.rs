//! What every format promises: it comes back as it went in, and anything else is refused with a typed error.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should stop there"
)]

mod backups;
mod boxes;
mod golden;
mod notes;
mod records;
mod samples;
mod signatures;
mod statements;
mod tokens;
