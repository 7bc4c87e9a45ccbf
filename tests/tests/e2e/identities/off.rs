//! A cluster that was off for longer than a machine may be away.

use crate::input::with_clock;
use crate::seen::shown;
use crate::world::{Daemon, World, eventually};
use serde_json::Value;

/// Past the certificates of all machines, the issuer, the statement key, and the window in which a machine comes back.
const LATER: &str = "+60d";

/// A daemon of the world's on that day.
fn later(w: &World, program: &str, config: &str, log: &str) -> Daemon {
    let mut c = with_clock(program, LATER);
    c.args(["--config", &w.text(config)]);
    Daemon::spawn(c, w.path(log))
}

/// The machines as the tool shows them on that day.
fn machines(w: &World) -> Option<Vec<Value>> {
    let mut tool = with_clock("holdfast", LATER);
    tool.args(["node", "ls", "--json"]).env("HOLDFAST_HOME", w.path("home"));
    let all: Value = serde_json::from_slice(&tool.output().unwrap().stdout).ok()?;
    all["nodes"].as_array().cloned()
}

#[test]
fn a_cluster_that_was_off_for_two_months_takes_its_machines_back() {
    let mut w = World::everything();
    eventually("the orchestrator to be at work", || {
        w.orchestrator.as_ref()?.log_text().contains("connected to the vault").then_some(())
    });
    let ids = ["node", "orchestrator"].map(|role| shown(&w, role)["id"].clone());
    w.agents[0].kill();
    w.orchestrator.as_mut().unwrap().kill();
    w.kill_vault();
    w.start_vault_with(|name| with_clock(name, LATER));
    w.unlock();
    let orchestrator = later(&w, "holdfast-orchestrator", "orch.toml", "orch.log");
    w.orchestrator = Some(orchestrator);
    let agent = later(&w, "holdfast-agent", "agent0.toml", "agent0.log");
    w.agents[0] = agent;
    for id in &ids {
        eventually("it to be back under its own id", || {
            let is_back = |m: &Value| m["id"] == *id && m["state"] == "ready" && m["connected"] != false;
            machines(&w)?.iter().any(is_back).then_some(())
        });
    }
    assert!(w.agents[0].log_text().contains("took this node back by its key"));
}
