//! Memory of a vault that is unlocked and has nothing to do.
//!
//! Beside it: the same process before it was unlocked.

use crate::Failed;
use crate::cluster::world::World;
use crate::line::{Goal, Line};
use std::time::Duration;

pub const HOW: &str = "resident memory (VmRSS) of a restarted voter 10 s after it was unlocked; beside: sealed";

/// Long enough for what starts after the unlock to have happened.
const SETTLED: Duration = Duration::from_secs(10);

pub fn unlocked() -> Result<Line, Failed> {
    let mut w = World::founded();
    w.kill_vault();
    w.start_vault();
    let beside = resident_mib(&w)?;
    w.unlock();
    std::thread::sleep(SETTLED);
    Ok(Line { value: resident_mib(&w)?, unit: "MiB", beside, goal: Goal::AtMost(40.0) })
}

/// Resident memory of the vault's process.
pub fn resident_mib(w: &World) -> Result<f64, Failed> {
    memory_mib(w.vault.as_ref().ok_or("the vault does not run")?.pid(), "VmRSS:")
}

/// What `/proc/<pid>/status` says under this name.
pub fn memory_mib(pid: u32, name: &str) -> Result<f64, Failed> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_suffix(" kB"));
    Ok(kib.ok_or_else(|| format!("no {name}"))?.parse::<f64>()? / 1024.0)
}
