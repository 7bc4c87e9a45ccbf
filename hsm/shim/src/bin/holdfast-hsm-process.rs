//! The keeper and the worker as a program of their own, for tests. The vault carries its own.

use holdfast_hsm::process;
use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    match role.as_deref() {
        Some(process::KEEPER) => process::keeper_main(),
        Some(process::WORKER) => process::worker_main(),
        _ => ExitCode::FAILURE,
    }
}
