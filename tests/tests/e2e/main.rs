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

mod attempts;
mod backup;
mod beside;
mod brake;
mod callers;
mod canary;
mod clocked;
mod crash;
mod credential;
mod demo;
mod denied;
mod documents;
mod evil;
mod failover;
mod heartbeat;
mod hsm;
mod identities;
mod image;
mod input;
mod keys;
mod leftovers;
mod lives;
mod locks;
mod matrix;
mod memory;
mod operators;
mod outages;
mod outside;
mod pace;
mod pages;
mod registry;
mod remembered;
mod renewal;
mod roots;
mod second;
mod seen;
mod shims;
mod shred;
mod signals;
mod sleepers;
mod story;
mod swap;
mod syscalls;
mod tokens;
#[allow(dead_code, reason = "shared with the chaos suite: each uses a part of it")]
mod traced;
mod tunnel;
mod voters;
mod world;
