//! An orchestrator that lies: what the vault and the nodes give it nevertheless, and what they do not.

mod assigns;
mod images;
mod late;
mod orchestrator;
mod orders;
mod rights;
mod surface;
mod takeover;

use super::shims::shims;
use super::world::{World, eventually};
use holdfast_types::sha256;
use std::fs;

const VALUE: &[u8] = b"correct horse battery staple";

/// The line of the log that tells of a refusal with this code.
fn evidence(w: &World, code: &str) -> String {
    eventually(&format!("evidence of {code} in the log"), || {
        let log = w.ok(&["log", "tail", "-n", "200"]);
        log.lines().find(|l| l.contains("evidence") && l.contains(&format!("{code}:"))).map(str::to_owned)
    })
}

fn entries(folder: &std::path::Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Nothing runs on agent `n`, nothing ever did, and no secret is in its memory file system.
fn assert_untouched(w: &World, n: usize) {
    assert_eq!(shims(w, n), [0; 0], "a container runs on agent {n}");
    assert_eq!(entries(&w.agent_state(n).join("tasks")), 0, "a container was made on agent {n}");
    assert_eq!(entries(&w.agent_run(n).join("secrets")), 0, "a secret is mounted on agent {n}");
    assert!(w.running("shop/web").is_empty());
}

/// Liveness: under the honest orchestrator the service runs with its secret, in as many containers as it should.
fn assert_honest_work_goes_on(w: &mut World, replicas: usize) {
    w.start_orchestrator();
    eventually("the service under the honest orchestrator", || (w.running("shop/web").len() == replicas).then_some(()));
    let expected = format!("secret {}", sha256(&[VALUE]).hex());
    // Until its session is open again, a node cannot be asked for what its task prints.
    eventually("the container's output", || {
        let output = w.cli(&["service", "logs", "shop/web"]).stdout;
        String::from_utf8_lossy(&output).contains(&expected).then_some(())
    });
    let containers: usize = (0..w.agents.len()).map(|n| shims(w, n).len()).sum();
    assert_eq!(containers, replicas, "more runs than the vault knows of");
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

/// The ids of the nodes, in the order of their agents.
fn node_ids(w: &World) -> Vec<String> {
    let id = |n: usize| {
        let log = w.agents[n].log_text();
        let all = w.json(&["node", "ls"]);
        let ids = all["nodes"].as_array().unwrap().iter().filter(|v| v["role"] == "node");
        let mut ids = ids.map(|v| v["id"].as_str().unwrap().to_owned());
        ids.find(|id| log.contains(id)).unwrap_or_else(|| panic!("agent {n} does not tell its id"))
    };
    (0..w.agents.len()).map(id).collect()
}
