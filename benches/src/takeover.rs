//! From the end of a killed orchestrator's lease until another one holds it, both by the vault's own word.
//!
//! Beside it: the longest that an orchestrator waits after that end, so that several do not ask at once.

use crate::Failed;
use crate::cluster::second::{Second, between, changed_at, lease, pictures};
use crate::cluster::world::{Daemon, World, eventually};
use crate::line::{self, Goal, Line};
use crate::programs::program;
use serde_json::Value;
use std::process::Command;

pub const HOW: &str = "the longest of 5: of two orchestrators the one that holds the lease is killed; from the end of that lease, as the vault's \
     status says, to the entry of the log that names the next holder; beside: the longest wait after that end, 250 ms, not measured";

const KILLS: usize = 5;
/// `SPREAD_MS` of the orchestrator.
const SPREAD_MS: f64 = 250.0;

pub fn after_a_kill() -> Result<Line, Failed> {
    let mut w = World::founded();
    w.add_orchestrator();
    // Nobody carries it; there is a namespace to schedule.
    let spec = format!(
        "name = \"web\"\nnamespace = \"shop\"\nimage = {:?}\ncommand = [\"/bin/busybox\", \"sleep\", \"3600\"]\n",
        w.busybox()
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec("web", &spec), "--detach"]);
    eventually("somebody to schedule", || lease(&w));
    let mut second = Second::beside(&w);
    let mut times = (0..KILLS).map(|_| takeover(&mut w, &mut second)).collect::<Result<Vec<i64>, _>>()?;
    times.sort_unstable();
    line::say(&format!("  {times:?} ms"));
    let longest = times.last().copied().ok_or("nothing was measured")?;
    let value = f64::from(i32::try_from(longest)?);
    Ok(Line { value, unit: "ms", beside: SPREAD_MS, goal: Goal::AtMost(5000.0) })
}

/// Kills the holder; how many milliseconds its lease was over when the other one had it. Both are there again afterwards.
fn takeover(w: &mut World, second: &mut Second) -> Result<i64, Failed> {
    let holder = |w: &World| -> Result<Value, Failed> { lease(w).ok_or_else(|| "nobody schedules".into()) };
    let is_second = holder(w)?.get("holder").is_some_and(|h| *h == second.id.as_str());
    let first = w.orchestrator.as_mut().ok_or("there is no orchestrator")?;
    let killed = if is_second { &mut second.daemon } else { first };
    killed.kill();
    let log = killed.log.clone();
    let held = holder(w)?;
    eventually("another to hold the lease", || lease(w).filter(|l| l.get("holder") != held.get("holder")));
    let until = held.get("until").ok_or("the lease has no end")?;
    let late = between(until, &changed_at(w));
    let so_far = pictures(&log);
    if is_second {
        let mut c = Command::new(program("holdfast-orchestrator")?);
        c.args(["--config", &w.text("second.toml")]);
        second.daemon = Daemon::spawn(c, log.clone());
    } else {
        w.start_orchestrator();
    }
    eventually("the killed one to be back", || (pictures(&log) > so_far).then_some(()));
    Ok(late)
}
