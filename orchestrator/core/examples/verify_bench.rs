//! Prints how long one `verify_assign` takes: `cargo run --release -p holdfast-orchestrator-core --example verify_bench`.
//! Goal: at most 1 ms. Not a test: it asserts only that the assignment is accepted.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measuring program"
)]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/verify/world/mod.rs"]
mod world;

use std::time::Instant;

const ROUNDS: u32 = 2_000;

fn main() {
    let s = world::Scene::honest();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert!(s.verify().is_ok());
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!(
        "verify_assign {each:.0} µs (grant, spec, 1 image with 2 publisher keys, receipt, 2 secrets; goal 1000 µs)"
    );
}
