//! Lives of tasks, leases and joins: a container that crashes, output that is followed meanwhile, a node out of contact, one
//! that waits for leave.

use super::shims::{assert_running, shims};
use super::world::{World, eventually};
use std::collections::BTreeSet;
use std::fs;

/// When each run of the crasher began, in hundredths of a second, as it printed them.
fn runs(text: &str) -> Vec<u64> {
    let run = |line: &str| line.split_once(" run ")?.1.trim().replace('.', "").parse().ok();
    text.lines().filter_map(run).collect()
}

#[test]
fn a_container_that_crashes_starts_again_ever_later_and_its_output_is_followed() {
    let w = World::everything();
    let image = w.busybox();
    let crasher = |name: &str, restart: &str| {
        let text = format!(
            "name = {name:?}\nnamespace = \"shop\"\nimage = {image:?}\nrestart = {restart:?}\n\
             command = [\"/bin/busybox\", \"sh\", \"-c\", \"read up rest < /proc/uptime; echo run $up; exit 3\"]\n"
        );
        w.write_spec(name, &text)
    };
    w.ok(&["service", "deploy", "-f", &crasher("crash", "on-failure"), "--detach"]);
    let first = || w.cli(&["service", "logs", "shop/crash"]).stdout;
    eventually("the first run", || (!runs(&String::from_utf8_lossy(&first())).is_empty()).then_some(()));
    let follow = w.beside(&["service", "logs", "shop/crash", "--follow"], "follow.log");
    let seen =
        eventually("five runs in the followed output", || Some(runs(&follow.log_text())).filter(|r| r.len() >= 5));
    let gaps: Vec<u64> = seen.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[3] > 2 * gaps[0], "the waits between runs do not grow: {gaps:?}");
    let task = w.tasks("shop/crash").remove(0);
    assert_eq!(w.tasks("shop/crash").len(), 1, "a crash is the node's own affair: {task}");
    assert!(task["restarts"].as_u64().unwrap() >= 4 && task["exit_code"] == 3, "{task}");
    // Every run once and in order; asked for afterwards, the last runs are still there.
    assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
    let kept = runs(&w.ok(&["service", "logs", "shop/crash"]));
    assert!(
        kept.len() >= 2 && kept.iter().all(|run| seen.contains(run) || Some(run) > seen.last()),
        "{kept:?}, {seen:?}"
    );
    w.ok(&["service", "rm", "shop/crash"]);
    let mut follow = follow;
    let end = eventually("the followed output to end with its service", || follow.exited());
    assert_eq!(end, Some(0), "{}", follow.log_text());
}

#[test]
fn a_node_that_waits_for_approval_is_admitted_by_the_key_on_its_console() {
    let mut w = World::founded();
    w.write_agent_config(0, "");
    let token = w.token("node", &["--approval", "--zone", "eu"]);
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(0, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    let pending = |w: &World| {
        let all = w.json(&["node", "ls"]);
        all["nodes"].as_array().unwrap().iter().find(|n| n["state"] == "pending").cloned()
    };
    let node = eventually("the node to wait", || pending(&w));
    let (id, key) = (node["id"].as_str().unwrap(), node["key"].as_str().unwrap());
    eventually("the key on the console", || w.agents[0].log_text().contains(key).then_some(()));
    // A13: the approval of another key admits nobody.
    let other: String = key.chars().rev().collect();
    w.refused(&["node", "approve", id, "--key", &other], 3);
    // It waits through an agent that dies, with neither token nor address, and through a vault that does.
    w.agents[0].kill();
    fs::remove_file(&token).unwrap();
    w.start_agent(0, &[]);
    w.restart_vault();
    let polls = |w: &World| w.agents[0].log_text().matches("the vault does not answer").count();
    let before = polls(&w);
    w.kill_vault();
    eventually("a question without an answer", || (polls(&w) > before).then_some(()));
    w.start_vault();
    w.unlock();
    assert_eq!(pending(&w).map(|n| n["id"].clone()), Some(node["id"].clone()), "it joined twice, or not at all");
    w.ok(&["node", "approve", id, "--key", key]);
    eventually("the node to be connected", || {
        let all = w.json(&["node", "ls"]);
        let up = |n: &serde_json::Value| n["id"] == id && n["state"] == "ready" && n["connected"] == true;
        all["nodes"].as_array().unwrap().iter().any(up).then_some(())
    });
    assert_eq!(w.json(&["node", "inspect", id])["zone"], "eu");
    // The leave was for that key once: nobody collects it again.
    assert!(w.ok(&["log", "tail", "-n", "100"]).contains("node.approve"));
}

/// The states of a service's grants, with those that ended, and the newest end of a lease.
fn leases(w: &World, service: &str) -> (Vec<String>, String) {
    let all = w.json(&["grant", "ls", "--namespace", "shop", "--service", service, "--all"]);
    let grants = all["grants"].as_array().unwrap();
    let text = |key: &str| -> Vec<String> { grants.iter().map(|g| g[key].as_str().unwrap().to_owned()).collect() };
    (text("state"), text("lease_until").into_iter().max().unwrap())
}

#[test]
fn leases_go_on_without_the_orchestrator_and_end_without_the_node() {
    let mut w = World::with_lives("grant = \"6s\"\nexclusive = \"12s\"\ngrace = \"4s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    // This one is ended by its node as soon as its lease is over there: it lives by what the vault tells the node.
    let image = w.busybox();
    let only = format!(
        "name = \"only\"\nnamespace = \"shop\"\nimage = {image:?}\nexclusive = true\n\
         command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec("only", &only)]);
    let (task, containers) = (w.running("shop/web").remove(0), shims(&w, 0));
    assert_eq!(containers.len(), 2);
    // Vault and node see to it between them: an orchestrator that is gone shortens nothing.
    w.orchestrator.as_mut().unwrap().kill();
    for service in ["web", "only"] {
        let mut ends = BTreeSet::new();
        eventually("five extensions", || {
            ends.insert(leases(&w, service).1);
            (ends.len() > 5).then_some(())
        });
    }
    assert_eq!(shims(&w, 0), containers, "the same two containers, longer than a lease later");
    // Nor does it prolong anything for a node that nobody hears of: what runs there counts until lease and grace are over.
    w.agents[0].kill();
    eventually("the grants to end", || {
        ["web", "only"].iter().all(|s| leases(&w, s).0.iter().all(|state| state == "ended")).then_some(())
    });
    // The node is back: what outlived its grant there is ended, and runs again once somebody schedules.
    w.start_agent(0, &[]);
    assert_running(&w, 0);
    w.start_orchestrator();
    eventually("a new task", || w.running("shop/web").into_iter().find(|t| t["id"] != task["id"]));
    assert_running(&w, 2);
}

/// How many entries of this kind the log has.
fn entries(w: &World, kind: &str) -> usize {
    w.ok(&["log", "tail", "-n", "5000"]).lines().filter(|l| l.contains(kind)).count()
}

#[test]
fn the_vault_renews_its_own_keys_under_everything_that_runs() {
    let mut w = World::with_lives("issuer = \"30s\"\nvoter = \"18s\"\nnode = \"18s\"\norchestrator = \"18s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let containers = shims(&w, 0);
    let kinds = ["stk.rotate", "issuer.create", "voter.up"];
    let before = kinds.map(|k| entries(&w, k));
    eventually("two new keys of each kind", || {
        kinds.iter().zip(before).all(|(k, n)| entries(&w, k) >= n + 2).then_some(())
    });
    // Signed by a statement key that the node learnt meanwhile, over certificates of another issuer.
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    assert_running(&w, 2);
    assert!(containers.iter().all(|c| shims(&w, 0).contains(c)), "what ran was disturbed");
    let newest = w.tasks("shop/web").remove(0)["id"].as_str().unwrap().to_owned();
    w.ok(&["grant", "verify", &newest]);
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}
