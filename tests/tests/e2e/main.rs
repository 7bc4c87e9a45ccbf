//! End to end: real processes, real cryptography, real containers, one machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "a test that meets the unexpected should stop there, and say so"
)]

mod canary;
mod crash;
mod evil;
mod image;
mod input;
mod locks;
mod story;
mod tokens;
mod world;
