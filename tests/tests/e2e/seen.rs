//! What the operator's tool shows of a cluster: its machines, its alarms, its log.

use super::world::{World, eventually};
use serde_json::Value;

/// The one machine of this role, as `node ls` shows it.
pub fn shown(w: &World, role: &str) -> Value {
    let all = w.json(&["node", "ls"]);
    all["nodes"].as_array().unwrap().iter().find(|n| n["role"] == role).unwrap().clone()
}

/// Whether that machine is in `state`.
pub fn is(w: &World, role: &str, state: &str) -> bool {
    shown(w, role)["state"] == state
}

/// Whether the node is at work.
pub fn works(w: &World) -> bool {
    let node = shown(w, "node");
    node["state"] == "ready" && node["connected"] == true
}

/// Waits until the node is connected.
pub fn connected(w: &World) {
    eventually("the node to be connected", || (shown(w, "node")["connected"] == true).then_some(()));
}

/// The alarm of that code, as `status` shows it.
pub fn alarm(w: &World, code: &str) -> Option<String> {
    let status = w.json(&["status"]);
    let found = status["alarms"].as_array().unwrap().iter().find(|a| a["code"] == code)?;
    Some(found["text"].as_str().unwrap().to_owned())
}

/// The newest entries of the log.
pub fn log(w: &World) -> String {
    w.ok(&["log", "tail", "-n", "500"])
}
