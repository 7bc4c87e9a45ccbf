//! Memory of a voter of a large cluster.
//!
//! Beside it: the same process before anything joined it or was put.

use crate::Failed;
use crate::cluster::{self, world::World};
use crate::fleet::{self, Fleet};
use crate::idle::resident_mib;
use crate::line::{Goal, Line};
use crate::restart::filled;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub const HOW: &str = "resident memory (VmRSS) of a voter 10 s after 10000 nodes had joined it, over 16 connections at a time, and 10000 \
     secrets of 1 KiB had been put; no node stays connected; beside: founded a moment ago";

pub const HOW_CONNECTED: &str = "growth of the voter's resident memory (VmRSS) when 2000 nodes that had joined connected, over 2000, after 10 s: an mTLS \
     session and an open stream each; beside: the same growth when they joined";

const NODES: usize = 10_000;
const AT_A_TIME: usize = 16;
const SECRETS: usize = 10_000;
const BYTES: usize = 1 << 10;
const SETTLED: Duration = Duration::from_secs(10);

pub fn of_a_large_cluster() -> Result<Line, Failed> {
    let w = World::founded();
    let beside = resident_mib(&w)?;
    let token = w.token("node", &["--uses", &NODES.to_string()]);
    join(w.join, &token)?;
    filled(&w, SECRETS, BYTES)?;
    thread::sleep(SETTLED);
    Ok(Line { value: resident_mib(&w)?, unit: "MiB", beside, goal: Goal::AtMost(96.0) })
}

pub fn of_a_connected_node() -> Result<Line, Failed> {
    const CONNECTED: u32 = 2000;
    let w = fleet::world()?;
    let settled = || {
        thread::sleep(SETTLED);
        resident_mib(&w)
    };
    let empty = settled()?;
    let nodes = Fleet::join(&w, CONNECTED as usize)?;
    let joined = settled()?;
    let fleet = Fleet::start(nodes)?;
    let connected = settled()?;
    drop(fleet);
    let kib_each = |growth: f64| growth * 1024.0 / f64::from(CONNECTED);
    let (value, beside) = (kib_each(connected - joined), kib_each(joined - empty));
    Ok(Line { value, unit: "KiB/node", beside, goal: Goal::AtMost(60.0) })
}

fn join(port: u16, token: &Path) -> Result<(), Failed> {
    let some = || cluster::runtime()?.block_on(cluster::register(port, token, NODES / AT_A_TIME));
    thread::scope(|s| {
        let all: Vec<_> = (0..AT_A_TIME).map(|_| s.spawn(some)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a thread panicked")?)
    })
}
