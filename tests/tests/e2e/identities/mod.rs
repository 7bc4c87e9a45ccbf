//! Identities that outlive absence and theft: machines that were off for too long, copies of a disk, removals.

mod away;
mod leases;
mod off;
mod removal;
pub mod thief;
mod unreached;

use crate::world::World;
use serde_json::Value;

/// The one machine of this role, as `node ls` shows it.
fn shown(w: &World, role: &str) -> Value {
    let all = w.json(&["node", "ls"]);
    all["nodes"].as_array().unwrap().iter().find(|n| n["role"] == role).unwrap().clone()
}

/// Whether that machine is in `state`.
fn is(w: &World, role: &str, state: &str) -> bool {
    shown(w, role)["state"] == state
}

/// Whether the node is at work.
fn works(w: &World) -> bool {
    let node = shown(w, "node");
    node["state"] == "ready" && node["connected"] == true
}

/// Whether `status` has this alarm.
fn alarmed(w: &World, code: &str) -> bool {
    alarm(w, code).is_some()
}

/// What `status` says in this alarm.
fn alarm(w: &World, code: &str) -> Option<String> {
    let status = w.json(&["status"]);
    let alarm = status["alarms"].as_array().unwrap().iter().find(|a| a["code"] == code)?;
    Some(alarm["text"].as_str().unwrap().to_owned())
}

/// The newest entries of the log.
fn log(w: &World) -> String {
    w.ok(&["log", "tail", "-n", "500"])
}
