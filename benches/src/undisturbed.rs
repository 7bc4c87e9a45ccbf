//! What a large cluster's work in the background costs the writes of that time: a keyring's rotation, and snapshots.

use crate::Failed;
use crate::cluster::{self, world::World};
use crate::line::{self, Goal, Line};
use crate::load::Taken;
use crate::puts::Operator;
use crate::restart::{SECRETS, filled};
use std::fs;
use std::time::Duration;

pub const HOW_REWRAP: &str = "99 of 100 puts of 1 KiB by 16 clients were answered within, while 100000 records moved to another keyring term: the \
     clients begin when that was ordered, and end after 10 s or with the old term; beside: the same before";
pub const HOW_SNAPSHOT: &str = "the longest of all puts of 1 KiB by 16 clients in 20 s, while snapshots of 100000 secrets of 1 KiB are taken every 300 \
     entries of the log; beside: the same before those secrets were put, when snapshots are small";

const CLIENTS: usize = 16;
const BYTES: usize = 1 << 10;
/// What is sealed anew in a rotation: its size hardly matters.
const SMALL: usize = 32;

pub fn rewrap() -> Result<Line, Failed> {
    const SPAN: Duration = Duration::from_secs(10);
    let w = World::founded();
    let operator = filled(&w, SECRETS, SMALL)?;
    let before = puts(&w, &operator, SPAN, || ())?;
    let during = puts(&w, &operator, SPAN, || drop(w.ok(&["keyring", "rotate", "--detach"])))?;
    let status = w.json(&["keyring", "status"]);
    line::say(&format!("  {:.0} puts/s before, {:.0} during; then: {status}", before.a_second, during.a_second));
    let (value, beside) = (during.quantile_ms(0.99), before.quantile_ms(0.99));
    Ok(Line { value, unit: "ms", beside, goal: Goal::TimesBeside(2.0) })
}

pub fn snapshot() -> Result<Line, Failed> {
    const SPAN: Duration = Duration::from_secs(20);
    let mut w = World::founded();
    snapshots_every(&mut w, 300)?;
    w.ok(&["status"]);
    let without = puts(&w, &Operator::load(&w.path("home"))?, SPAN, || ())?;
    let operator = filled(&w, SECRETS, BYTES)?;
    let so_far = taken(&w);
    let with = puts(&w, &operator, SPAN, || ())?;
    let (rate, p99, count) = (with.a_second, with.quantile_ms(0.99), taken(&w) - so_far);
    line::say(&format!("  {count} snapshots meanwhile, {rate:.0} puts/s, 99 of 100 within {p99:.1} ms"));
    if count == 0 {
        return Err("no snapshot was taken in the span".into());
    }
    Ok(Line { value: with.longest_ms(), unit: "ms", beside: without.longest_ms(), goal: Goal::AtMost(100.0) })
}

fn puts(w: &World, operator: &Operator, span: Duration, then: impl FnOnce()) -> Result<Taken, Failed> {
    /// Versions each client has ready: more than it comes to.
    const READY: usize = 4000;
    let addr = format!("127.0.0.1:{}", w.service);
    let runtime = cluster::runtime()?;
    let load = runtime.block_on(operator.ready(&addr, CLIENTS, BYTES, READY, span))?;
    then();
    runtime.block_on(load.run())
}

/// The vault anew, with a snapshot every so many entries.
fn snapshots_every(w: &mut World, entries: u64) -> Result<(), Failed> {
    w.write_vault_config();
    let path = w.path("vault.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("snapshot_every = {entries}\n{text}"))?;
    w.restart_vault();
    Ok(())
}

/// Snapshots that the vault has taken, as its log says.
fn taken(w: &World) -> usize {
    w.vault.as_ref().map_or(0, |d| d.log_text().lines().filter(|l| l.contains("a snapshot was taken")).count())
}
