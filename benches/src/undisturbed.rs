//! What a large cluster's work in the background costs the writes of that time: a keyring's rotation, and snapshots.

use crate::Failed;
use crate::cluster::voters::{Voter, Voters};
use crate::cluster::{self, world::World};
use crate::idle::memory_mib;
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
pub const HOW_PEAK: &str = "the highest resident memory (VmHWM) of a leader with 100000 secrets of 1 KiB while it takes snapshots and sends one to a \
     voter that joins, until that one counts; beside: its resident memory (VmRSS) right before";

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
    // Of the records of the other term fewer are left than there were: they moved within the span.
    let left = status
        .get("left")
        .and_then(serde_json::Value::as_u64)
        .ok_or("the keyring's status does not say what is left")?;
    if status.get("term").is_none_or(|t| t != 2) || left >= SECRETS as u64 {
        return Err("no record moved in the span".into());
    }
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

pub fn peak() -> Result<Line, Failed> {
    let mut v = Voters::founded_at(1, often);
    let leader = v.all.first().ok_or("there is no voter")?;
    let pid = leader.daemon.as_ref().ok_or("the voter does not run")?.pid();
    filled(&v.w, SECRETS, BYTES)?;
    let kept = leader.log_text().matches(TAKEN).count();
    if kept == 0 {
        return Err("no snapshot was taken".into());
    }
    let beside = memory_mib(pid, "VmRSS:")?;
    // From here on.
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let new = v.add();
    let value = memory_mib(pid, "VmHWM:")?;
    let joined = v.all.get(new).and_then(|voter| voter.daemon.as_ref()).ok_or("the new voter does not run")?.pid();
    line::say(&format!("  the voter that took it in: {:.0} MiB at most", memory_mib(joined, "VmHWM:")?));
    Ok(Line { value, unit: "MiB", beside, goal: Goal::TimesBeside(2.0) })
}

/// A voter that takes a snapshot every 300 entries: one that joins starts behind the log.
fn often(w: &World, name: &str) -> Voter {
    let mut voter = Voter::place(w, name);
    voter.more = "snapshot_every = 300".to_owned();
    voter
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

/// As a snapshot is told in the vault's log.
const TAKEN: &str = "a snapshot was taken";

/// Snapshots that the vault has taken, as its log says.
fn taken(w: &World) -> usize {
    w.vault.as_ref().map_or(0, |d| d.log_text().lines().filter(|l| l.contains(TAKEN)).count())
}
