//! Measurements of release builds: `make bench [NAME=part-of-a-name]`. One line each, then the machine and its load.
//!
//! A measurement prints what it saw, also when it falls short: only a run that could not measure fails.

mod line;
mod planner;
mod verify;

use line::Line;
use std::process::ExitCode;

/// What can go wrong while measuring.
type Failed = Box<dyn std::error::Error>;

/// One measurement, from nothing to its line.
type Measure = fn() -> Result<Line, Failed>;

const MEASUREMENTS: [(&str, Measure); 2] =
    [("planner", planner::from_nothing), ("verify-assign", verify::one_assignment)];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let chosen: Vec<_> = MEASUREMENTS.iter().filter(|(name, _)| name.contains(&wanted)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        line::say(&format!("no measurement is named like {wanted:?}; there are {}", names.join(", ")));
        return ExitCode::from(2);
    }
    let mut failed = false;
    for (name, measure) in chosen {
        match measure() {
            Ok(measured) => line::say(&format!("bench {name} {measured}")),
            Err(e) => {
                failed = true;
                line::say(&format!("bench {name} failed: {e}"));
            }
        }
    }
    line::say(&line::machine());
    ExitCode::from(u8::from(failed))
}
