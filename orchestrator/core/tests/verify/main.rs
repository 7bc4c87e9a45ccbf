//! What a node accepts and what it refuses: an honest world, and one lie at a time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should stop there"
)]

mod assign;
mod boxes;
mod content;
mod era;
mod flips;
mod lies;
mod orders;
mod receipt;
mod rotation;
mod trust;
mod world;
