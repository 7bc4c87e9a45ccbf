//! What the tests of the whole share: the repository as text, and the graph of crates as cargo resolves it.
//!
//! Must never be imported by a crate that ships.

pub mod graph;
pub mod history;
pub mod programs;
pub mod repository;
