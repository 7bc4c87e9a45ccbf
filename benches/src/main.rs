//! Measurements of release builds: `make bench [NAME=part-of-a-name]`. One line each and how it was taken, then the
//! machine and its load.
//!
//! A measurement prints what it saw, also when it falls short: only a run that could not measure fails.

// The cluster of the end-to-end tests names its crate; here it is this one (see `programs`).
extern crate self as suite;

mod bare;
mod cluster;
mod deploy;
mod etcd;
mod failover;
mod fleet;
mod floor;
mod grants;
mod idle;
mod leaves;
mod line;
mod load;
mod memory;
mod planner;
mod policy;
mod programs;
mod puts;
mod restart;
mod revoke;
mod rotate;
mod takeover;
mod token;
mod undisturbed;
mod verify;
mod writes;

// The voters of the end-to-end tests find their world here.
use cluster::world;
use line::Line;
use std::process::ExitCode;

/// What can go wrong while measuring.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One measurement.
struct Measurement {
    name: &'static str,
    how: &'static str,
    /// From nothing to its line.
    measure: fn() -> Result<Line, Failed>,
}

const MEASUREMENTS: [Measurement; 27] = [
    Measurement { name: "issue-leaves", how: leaves::HOW, measure: leaves::over_open_connections },
    Measurement { name: "bare-leaves", how: bare::HOW, measure: bare::over_open_connections },
    Measurement { name: "grants", how: grants::HOW, measure: grants::in_batches },
    Measurement { name: "verify-assign", how: verify::HOW, measure: verify::one_assignment },
    Measurement { name: "deploy", how: deploy::HOW, measure: deploy::one_replica },
    Measurement { name: "policy", how: policy::HOW, measure: policy::of_a_large_cluster },
    Measurement { name: "planner", how: planner::HOW, measure: planner::from_nothing },
    Measurement { name: "writes-1", how: writes::HOW, measure: writes::one_voter },
    Measurement { name: "writes-1-p99", how: writes::HOW_P99, measure: writes::one_voter_p99 },
    Measurement { name: "bare-writes", how: bare::HOW_PUTS, measure: bare::puts },
    Measurement { name: "writes-3", how: writes::HOW_3, measure: writes::three_voters },
    Measurement { name: "writes-3-p99", how: writes::HOW_3_P99, measure: writes::three_voters_p99 },
    Measurement { name: "failover", how: failover::HOW, measure: failover::after_a_kill },
    Measurement { name: "takeover", how: takeover::HOW, measure: takeover::after_a_kill },
    Measurement { name: "start-100k", how: restart::HOW_START, measure: restart::large },
    Measurement { name: "unlock", how: restart::HOW_UNLOCK, measure: restart::unlock },
    Measurement { name: "unlock-3", how: restart::HOW_UNLOCK_3, measure: restart::unlock_three },
    Measurement { name: "rewrap-p99", how: undisturbed::HOW_REWRAP, measure: undisturbed::rewrap },
    Measurement { name: "snapshot-stall", how: undisturbed::HOW_SNAPSHOT, measure: undisturbed::snapshot },
    Measurement { name: "snapshot-peak", how: undisturbed::HOW_PEAK, measure: undisturbed::peak },
    Measurement { name: "rss-10k", how: memory::HOW, measure: memory::of_a_large_cluster },
    Measurement { name: "idle-rss", how: idle::HOW, measure: idle::unlocked },
    Measurement { name: "connected-rss", how: memory::HOW_CONNECTED, measure: memory::of_a_connected_node },
    Measurement { name: "rotate-10k", how: rotate::HOW_10K, measure: rotate::ten_thousand },
    Measurement { name: "rotate-8", how: rotate::HOW_8, measure: rotate::eight },
    Measurement { name: "revoke-1k", how: revoke::HOW, measure: revoke::one_of_a_thousand },
    Measurement { name: "token-sign", how: token::HOW, measure: token::root_signatures },
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == token::RATES {
        return rates();
    }
    let chosen: Vec<_> = MEASUREMENTS.iter().filter(|m| m.name.contains(&wanted)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = MEASUREMENTS.iter().map(|m| m.name).collect();
        line::say(&format!("no measurement is named like {wanted:?}; there are {}", names.join(", ")));
        return ExitCode::from(2);
    }
    let mut failed = false;
    for m in chosen {
        match measured(m) {
            Ok(line) => line::say(&format!("bench {} {line}\n  {}", m.name, m.how)),
            Err(e) => {
                failed = true;
                line::say(&format!("bench {} failed: {e}", m.name));
            }
        }
    }
    line::say(&line::machine());
    ExitCode::from(u8::from(failed))
}

/// What `token` starts this program for.
fn rates() -> ExitCode {
    match token::rates() {
        Ok(rates) => line::say(&rates),
        Err(e) => {
            line::say(&format!("failed: {e}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The cluster of the tests panics at the unexpected: that ends this measurement, not the others.
fn measured(m: &Measurement) -> Result<Line, Failed> {
    std::panic::catch_unwind(m.measure).unwrap_or_else(|_| Err("it panicked, as said above".into()))
}
