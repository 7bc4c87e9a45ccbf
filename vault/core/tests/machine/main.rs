//! The vault's machine as its callers drive it: prepare on the leader, apply everywhere, release what was committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should stop there"
)]

#[path = "../world/mod.rs"]
mod world;

mod budgets;
mod charter;
mod denials;
mod denied;
mod exclusive;
mod grants;
mod guards;
mod histories;
mod hosts;
mod keyring;
mod leases;
mod log;
mod merged;
mod operators;
mod placements;
mod preconditions;
mod progress;
mod rejoin;
mod removal;
mod removed;
mod renewal;
mod reset;
mod rhythm;
mod roots;
mod silence;
mod standing;
mod stored;
mod strangers;
mod tokens;
mod unlock;
mod unlock_states;
mod voter_histories;
mod voters;
