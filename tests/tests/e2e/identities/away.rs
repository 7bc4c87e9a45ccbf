//! Machines, and a whole cluster, that were off for longer than their certificates live.

use super::deploy;
use crate::seen::{alarm, is, log, shown, works};
use crate::shims::{assert_running, shims};
use crate::world::{World, eventually};
use std::time::{Duration, Instant};

#[test]
fn a_node_that_was_off_for_longer_than_its_certificate_lives_comes_back_by_itself() {
    let mut w = World::with_lives("node = \"6s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    let id = shown(&w, "node")["id"].clone();
    w.agents[0].kill();
    eventually("its certificate to be over", || is(&w, "node", "expired").then_some(()));
    w.start_agent(0, &[]);
    eventually("the node to be back", || works(&w).then_some(()));
    assert_eq!(shown(&w, "node")["id"], id, "under its own id");
    assert!(log(&w).contains("identity.rejoin"));
    assert!(alarm(&w, "identity-rejoin").is_some());
    // It is a machine like any other again: it renews, and takes work.
    let serial = shown(&w, "node")["serial"].clone();
    eventually("its next renewal", || (shown(&w, "node")["serial"] != serial).then_some(()));
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    assert_running(&w, 1);
}

#[test]
fn a_removed_node_that_slept_does_not_come_back() {
    let mut w = World::with_lives("node = \"6s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    let id = shown(&w, "node")["id"].as_str().unwrap().to_owned();
    deploy(&w, "stays", "");
    assert_running(&w, 1);
    w.agents[0].kill();
    eventually("its certificate to be over", || is(&w, "node", "expired").then_some(()));
    w.ok(&["node", "rm", &id]);
    assert_running(&w, 1);
    w.start_agent(0, &[]);
    eventually("the refusal on its console", || {
        w.agents[0].log_text().contains("this identity is removed").then_some(())
    });
    eventually("what ran there to be ended", || shims(&w, 0).is_empty().then_some(()));
    assert!(!log(&w).contains("identity.rejoin"));
}

#[test]
fn a_cluster_that_was_off_until_everything_was_over_comes_up_by_unlocking_it() {
    let mut w =
        World::with_lives("node = \"9s\"\norchestrator = \"9s\"\nvoter = \"9s\"\noperator = \"9s\"\nissuer = \"15s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    w.agents[0].kill();
    w.orchestrator.as_mut().unwrap().kill();
    w.kill_vault();
    // The issuer and the statement key lived longest.
    let until = Instant::now() + Duration::from_secs(16);
    eventually("everything to be over", || (Instant::now() >= until).then_some(()));
    w.start_vault();
    w.unlock();
    w.start_orchestrator();
    w.start_agent(0, &[]);
    eventually("the node to be back", || works(&w).then_some(()));
    eventually("the orchestrator to be back", || is(&w, "orchestrator", "ready").then_some(()));
    w.ok(&["service", "scale", "shop/web=2"]);
    eventually("both replicas", || (w.running("shop/web").len() == 2).then_some(()));
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}
