//! From `holdfast node rm` to the end of the removed node's connection, beside many that are connected.

use crate::Failed;
use crate::fleet::{self, Fleet};
use crate::line::{Goal, Line};
use std::time::{Duration, Instant};

pub const HOW: &str = "the longest of 11 of 1000 simulated nodes with an open mTLS session and stream each: from the start of `holdfast node rm` \
     until that node sees its connection end; beside: the longest of as many calls of the CLI that change nothing";

const NODES: usize = 1000;
const REMOVED: usize = 11;

pub fn one_of_a_thousand() -> Result<Line, Failed> {
    let w = fleet::world()?;
    let mut fleet = Fleet::start(Fleet::join(&w, NODES)?)?;
    let ids: Vec<String> = fleet.ids.iter().take(REMOVED).cloned().collect();
    let (mut took, mut beside) = (Vec::new(), Vec::new());
    for id in &ids {
        let start = Instant::now();
        w.ok(&["root", "status"]);
        beside.push(start.elapsed());
        let start = Instant::now();
        w.ok(&["node", "rm", id]);
        took.push(fleet.ended(id, start)?.duration_since(start));
    }
    let (value, beside) = (longest_ms(&took)?, longest_ms(&beside)?);
    Ok(Line { value, unit: "ms", beside, goal: Goal::AtMost(1_000.0) })
}

fn longest_ms(all: &[Duration]) -> Result<f64, Failed> {
    Ok(all.iter().max().ok_or("nothing was measured")?.as_secs_f64() * 1e3)
}
