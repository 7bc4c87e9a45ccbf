//! An orchestrator beside the world's own, with a state, a port and a mandate of its own; and who holds the lease.

use super::world::{Daemon, World, eventually, free_port};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use suite::programs::program;

/// The one beside the world's own. It waits for the lease if another holds it.
pub struct Second {
    pub id: String,
    pub daemon: Daemon,
}

impl Second {
    /// Approved, with a mandate for everything, and in session with every node.
    pub fn beside(w: &World) -> Self {
        let (dir, port, lost) = (w.text("second"), free_port(), w.node_lost_after);
        let text = format!(
            "state_dir = {dir:?}\nlisten = \"127.0.0.1:{port}\"\nhealth = \"127.0.0.1:0\"\nnode_lost_after = {lost:?}\n"
        );
        fs::write(w.path("second.toml"), text).unwrap();
        let (token, vault) = (w.token("orchestrator", &[]), format!("127.0.0.1:{}", w.join));
        let mut c = Command::new(program("holdfast-orchestrator").unwrap());
        c.args(["--config", &w.text("second.toml"), "--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
        let daemon = Daemon::spawn(c, w.path("second.log"));
        let (id, key) = eventually("the second orchestrator to ask for approval", || {
            let all = w.json(&["node", "ls"]);
            let waits = |n: &&Value| n["role"] == "orchestrator" && n["state"] == "pending";
            let one = all["nodes"].as_array()?.iter().find(waits)?;
            Some((one["id"].as_str()?.to_owned(), one["key"].as_str()?.to_owned()))
        });
        w.ok(&["node", "approve", &id, "--key", &key]);
        w.ok(&["mandate", "put", "--orchestrator", &id]);
        let second = Self { id, daemon };
        eventually("the second orchestrator to be in session with every node", || {
            let is_known = |o: &Value| o["id"] == second.id.as_str();
            let known = w.json(&["status"])["orchestrators"].as_array()?.iter().any(is_known);
            (known && second.sessions() >= w.agents.len()).then_some(())
        });
        second
    }
    /// How many sessions with nodes it has had.
    pub fn sessions(&self) -> usize {
        self.daemon.log_text().matches("session begins").count()
    }
}

/// The lease of the namespace `shop`, as `status` shows it.
pub fn lease(w: &World) -> Option<Value> {
    let status = w.json(&["status"]);
    status["leases"].as_array()?.iter().find(|l| l["namespace"] == "shop").cloned()
}

/// Waits until `id` holds the lease of `shop`, and sees to `meanwhile` all the time; the lease.
pub fn taken_over(w: &World, id: &str, mut meanwhile: impl FnMut()) -> Value {
    eventually(&format!("{id} to hold the lease"), || {
        meanwhile();
        lease(w).filter(|l| l["holder"] == id)
    })
}

/// How often the process with this log has seen the whole directory: once for each connection to the vault.
pub fn pictures(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches("the directory is complete").count()
}

/// When `shop` got its present holder, by the log.
pub fn changed_at(w: &World) -> Value {
    let log = w.json(&["log", "tail", "-n", "200"]);
    let is_change = |e: &&Value| e["kind"] == "lease.change" && e["subject"] == "shop";
    log["entries"].as_array().unwrap().iter().rfind(is_change).expect("no lease changed")["at"].clone()
}

/// Milliseconds from one time to another of the same day, or the next; nearly a day if it is the earlier one.
pub fn between(from: &Value, to: &Value) -> i64 {
    // As in 2026-01-31T23:59:59.999Z.
    let ms = |time: &Value| {
        let text = time.as_str().unwrap();
        let part = |at: usize, len: usize| text[at..at + len].parse::<i64>().unwrap();
        ((part(11, 2) * 60 + part(14, 2)) * 60 + part(17, 2)) * 1000 + part(20, 3)
    };
    (ms(to) - ms(from)).rem_euclid(24 * 3600 * 1000)
}
