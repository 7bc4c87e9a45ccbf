//! How long a voter needs until it serves again: its start, and the unlock.

use crate::Failed;
use crate::cluster::{self, voters::Voters, world::World};
use crate::line::{Goal, Line};
use crate::puts::Operator;
use std::sync::Arc;
use std::time::Instant;

pub const HOW_START: &str = "a voter with 100000 secrets of 1 KiB, put by 64 clients, was killed: from the start of the process to the end of \
     `holdfast unlock`, which is when it serves; beside: the same before anything was put";
pub const HOW_UNLOCK: &str = "median of 10: `holdfast unlock` of a restarted voter that is alone and holds next to nothing, from the start of \
     the CLI to its exit, which is when the voter serves; beside: `holdfast status` then, median of 10";
pub const HOW_UNLOCK_3: &str = "median of 5: one `holdfast unlock` of all three voters after all were killed, from the start of the CLI to the moment \
     when each of them says that it serves; beside: `holdfast status` then, median of 5";

const CLIENTS: usize = 64;
/// Secrets of a large cluster.
pub const SECRETS: usize = 100_000;
const BYTES: usize = 1 << 10;
const RUNS: usize = 10;

/// A founded voter with `names` secrets of `bytes` bytes, and the operator who put them.
pub fn filled(w: &World, names: usize, bytes: usize) -> Result<Arc<Operator>, Failed> {
    w.ok(&["status"]);
    let operator = Arc::new(Operator::load(&w.path("home"))?);
    cluster::runtime()?.block_on(operator.fill(&format!("127.0.0.1:{}", w.service), CLIENTS, names, bytes))?;
    Ok(operator)
}

/// From the start of the process to the end of the unlock, in milliseconds.
fn back(w: &mut World) -> f64 {
    w.kill_vault();
    let start = Instant::now();
    w.start_vault();
    w.unlock();
    start.elapsed().as_secs_f64() * 1e3
}

pub fn large() -> Result<Line, Failed> {
    let mut w = World::founded();
    let beside = back(&mut w);
    filled(&w, SECRETS, BYTES)?;
    Ok(Line { value: back(&mut w), unit: "ms", beside, goal: Goal::AtMost(2000.0) })
}

pub fn unlock() -> Result<Line, Failed> {
    let mut w = World::founded();
    let (mut unlocks, mut looks) = (Vec::with_capacity(RUNS), Vec::with_capacity(RUNS));
    for _ in 0..RUNS {
        w.kill_vault();
        w.start_vault();
        unlocks.push(millis(|| w.unlock()));
        looks.push(millis(|| drop(w.ok(&["status"]))));
    }
    Ok(Line { value: median(unlocks), unit: "ms", beside: median(looks), goal: Goal::AtMost(300.0) })
}

pub fn unlock_three() -> Result<Line, Failed> {
    const CUTS: usize = 5;
    let mut v = Voters::founded(3);
    v.settle();
    let (mut unlocks, mut looks) = (Vec::with_capacity(CUTS), Vec::with_capacity(CUTS));
    for _ in 0..CUTS {
        (0..v.all.len()).for_each(|n| v.kill(n));
        for voter in &mut v.all {
            voter.start(&[]);
            voter.becomes("sealed");
        }
        let (sockets, key) = (v.sockets(), v.w.unlock_key.display().to_string());
        let mut unlock = vec!["unlock", "--key-file", key.as_str()];
        unlock.extend(sockets.iter().map(String::as_str));
        unlocks.push(millis(|| {
            v.w.ok(&unlock);
            v.all.iter().for_each(|voter| voter.becomes("ready"));
        }));
        looks.push(millis(|| drop(v.w.ok(&["status"]))));
    }
    Ok(Line { value: median(unlocks), unit: "ms", beside: median(looks), goal: Goal::AtMost(300.0) })
}

fn millis(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}
