//! The whole main job: from nothing to a container that holds a secret, and back.

use super::world::{World, eventually};
use holdfast_types::sha256;
use std::fs;

const VALUE: &[u8] = b"correct horse battery staple";

#[test]
fn from_an_empty_machine_to_a_container_that_holds_a_secret() {
    let w = World::everything();
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let tasks = w.running("shop/web");
    assert_eq!(tasks.len(), 1);

    // The container saw the very value, and only its hash is in its output.
    let expected = format!("secret {}", sha256(&[VALUE]).hex());
    eventually("the container's output", || w.ok(&["service", "logs", "shop/web"]).contains(&expected).then_some(()));

    // Everything that happened is in the log, and the log is whole.
    let kinds = w.ok(&["log", "tail", "-n", "200"]);
    for kind in [
        "init",
        "token.use",
        "node.create",
        "secret.put",
        "image.vouch",
        "service.deploy",
        "grant.issued",
        "grant.started",
    ] {
        assert!(kinds.contains(kind), "{kind} is not in the log:\n{kinds}");
    }
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
    let grant = tasks[0]["id"].as_str().unwrap().to_owned();
    w.ok(&["grant", "verify", &grant]);

    // More of it, on the same terms.
    w.ok(&["service", "scale", "shop/web=3"]);
    eventually("three replicas", || (w.running("shop/web").len() == 3).then_some(()));
    w.ok(&["service", "scale", "shop/web=1"]);
    eventually("one replica", || (w.running("shop/web").len() == 1).then_some(()));

    // And gone: the task, and its secret with it.
    let secrets = w.agent_run(0).join("secrets");
    assert!(fs::read_dir(&secrets).unwrap().count() > 0, "no secret is mounted");
    w.ok(&["service", "rm", "shop/web"]);
    eventually("the tasks to end", || w.running("shop/web").is_empty().then_some(()));
    eventually("the secrets to be gone", || (fs::read_dir(&secrets).unwrap().count() == 0).then_some(()));
}

#[test]
fn an_orchestrator_on_a_voters_machine_is_told_by_an_alarm_and_hinders_nothing() {
    let w = World::everything();
    let all = w.json(&["node", "ls"]);
    let orch = all["nodes"].as_array().unwrap().iter().find(|n| n["role"] == "orchestrator").unwrap()["id"].clone();
    let alarm = eventually("the alarm", || {
        let status = w.json(&["status"]);
        assert!(status["state"] == "ready" && status["hsm"].is_null() && status.get("hsm").is_some(), "{status}");
        status["alarms"].as_array().unwrap().iter().find(|a| a["code"] == "co-located").cloned()
    });
    assert!(alarm["text"].as_str().unwrap().contains(orch.as_str().unwrap()), "{alarm}");
}

#[test]
fn an_orchestrator_cannot_get_a_secret_that_the_service_may_not_read() {
    let mut w = World::everything();
    w.add_node("eu");
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    assert_eq!(w.running("shop/web").len(), 1);
    // The owner takes the right away while the spec that mounts the secret is active: what runs is taken back, and a
    // new place for it would need a new grant.
    w.put_secret("shop/db-password", VALUE, &["--reader", "shop/backup"]);
    eventually("the task to end", || w.running("shop/web").is_empty().then_some(()));
    assert!(w.ok(&["log", "tail", "-n", "100"]).contains("grant.revoked"));
    let denied = eventually("the denial in the log", || {
        let log = w.ok(&["log", "tail", "-n", "100"]);
        log.lines().find(|l| l.contains("grant.denied")).map(str::to_owned)
    });
    assert!(denied.contains("L1-mount") && denied.contains("shop/web"), "{denied}");
    // A new spec that mounts it is refused at once, and told by which policy.
    let told = w.refused(&["service", "scale", "shop/web=2"], 3);
    assert!(told.contains("L1-mount"), "{told}");
}

#[test]
fn a_drained_node_gives_its_tasks_away_and_a_removed_one_is_cut_off() {
    let mut w = World::everything();
    w.add_node("eu");
    for agent in &w.agents {
        eventually("the node's session", || agent.log_text().contains("session opened").then_some(()));
    }
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    let nodes: Vec<String> = w.running("shop/web").iter().map(|t| t["node"].as_str().unwrap().to_owned()).collect();
    assert_ne!(nodes[0], nodes[1], "replicas are spread over nodes");
    w.ok(&["node", "drain", &nodes[0]]);
    eventually("both tasks on the other node", || {
        let r = w.running("shop/web");
        (r.len() == 2 && r.iter().all(|t| t["node"] == nodes[1].as_str())).then_some(())
    });
    w.ok(&["node", "activate", &nodes[0]]);
    let given = w.ok(&["node", "rm", &nodes[1]]);
    assert!(given.contains("shop/db-password"), "{given}");
    assert_eq!(w.ok(&["node", "rm", &nodes[1]]), given, "who missed the list gets it again");
    // It heard of its removal before it was cut off: its containers and their secrets are gone, not only forgotten.
    let removed = w.agents.iter().position(|a| a.log_text().contains(&format!("node={}", nodes[1]))).unwrap();
    let secrets = w.agent_run(removed).join("secrets");
    eventually("the removed node's secrets to be gone", || {
        (fs::read_dir(&secrets).unwrap().count() == 0).then_some(())
    });
    eventually("both tasks back on the first node", || {
        let r = w.running("shop/web");
        (r.len() == 2 && r.iter().all(|t| t["node"] == nodes[0].as_str())).then_some(())
    });
}
