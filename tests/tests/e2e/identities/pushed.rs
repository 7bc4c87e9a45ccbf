//! A removal is told to everybody whom it concerns, and waits for no interval.

use crate::world::{World, eventually, within};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

/// Between two Statuses that nothing but the time calls for.
const INTERVAL: Duration = Duration::from_secs(60);

/// The ids of the nodes, as `node ls` shows them.
fn nodes(w: &World) -> Vec<String> {
    let all = w.json(&["node", "ls"]);
    let of_role = all["nodes"].as_array().unwrap().iter().filter(|n| n["role"] == "node");
    of_role.map(|n| n["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_removal_is_pushed_to_another_node_and_to_the_orchestrator_long_before_the_next_status() {
    let mut w = World::empty();
    let config = fs::read_to_string(w.path("vault.toml")).unwrap();
    let seldom = config.replace("status_every = \"2s\"", "status_every = \"60s\"\nstatus = \"10m\"");
    assert_ne!(config, seldom);
    fs::write(w.path("vault.toml"), seldom).unwrap();
    w.kill_vault();
    let start = Instant::now();
    w.start_vault();
    w.found();
    w.add_orchestrator();
    let stays = w.add_node("eu");
    let before = nodes(&w);
    let leaves = w.add_node("us");
    let gone = nodes(&w).into_iter().find(|id| !before.contains(id)).unwrap();
    let said = |what: &str| {
        let log = w.orchestrator.as_ref().unwrap().log_text();
        log.lines().any(|line| line.contains(what) && line.contains(&gone))
    };
    eventually("its session with the orchestrator", || said("session begins").then_some(()));
    // It hears of nothing itself, so what ends its connection is what the orchestrator was told.
    w.agents[leaves].signal(Signal::STOP);
    let heartbeat = w.agent_state(stays).join("heartbeat");
    let is_held = || {
        let bytes = fs::read(&heartbeat).unwrap_or_default();
        bytes.windows(gone.len()).any(|part| part == gone.as_bytes())
    };
    assert!(!is_held() && !said("connections closed"));
    w.ok(&["node", "rm", &gone]);
    within(
        Duration::from_secs(5),
        "the other node to hold the revocation, and the orchestrator to cut the node off",
        || (is_held() && said("connections closed")).then_some(()),
    );
    assert!(start.elapsed() < INTERVAL, "the next Status came meanwhile: this showed nothing");
    w.agents[leaves].signal(Signal::CONT);
}
