//! A node that is removed while nobody reaches it: what its services said of their expiry counts.

use crate::seen::shown;
use crate::shims::{assert_running, shims};
use crate::world::{World, eventually};
use rustix::process::Signal;

/// A service that stays, and says this besides.
fn deploy(w: &World, name: &str, more: &str) {
    let image = w.busybox();
    let text = format!(
        "name = {name:?}\nnamespace = \"shop\"\nimage = {image:?}\n{more}\n\
         command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec(name, &text)]);
}

#[test]
fn on_a_removed_node_that_is_cut_off_a_task_stops_at_lease_and_grace_if_its_service_says_so() {
    let mut w = World::with_lives("grant = \"8s\"\ngrace = \"4s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    deploy(&w, "stops", "on-expiry = \"stop\"");
    assert_running(&w, 1);
    let stops = shims(&w, 0).remove(0);
    deploy(&w, "stays", "");
    assert_running(&w, 2);
    let both = shims(&w, 0);
    let id = shown(&w, "node")["id"].as_str().unwrap().to_owned();
    // It hears nothing from here on: while it is removed it does not run, and its connection is gone; later there is nobody.
    w.orchestrator.as_mut().unwrap().kill();
    w.agents[0].signal(Signal::STOP);
    w.restart_vault();
    w.ok(&["node", "rm", &id]);
    w.kill_vault();
    let misses = |w: &World| w.agents[0].log_text().matches("no stream to the vault").count();
    let before = misses(&w);
    w.agents[0].signal(Signal::CONT);
    eventually("the node to look for a vault", || (misses(&w) > before).then_some(()));
    assert_eq!(shims(&w, 0), both, "what runs has its lease and its grace");
    eventually("the one to be stopped", || (!shims(&w, 0).contains(&stops)).then_some(()));
    // The other one has no lease either, and goes on: the default is for services that nobody wants to stop by a broken network.
    eventually("the node to say that the other one has no lease", || {
        let text = w.agents[0].log_text();
        text.lines().any(|l| l.contains("runs on without a lease") && l.contains("shop.stays")).then_some(())
    });
    let left: Vec<u32> = both.into_iter().filter(|pid| *pid != stops).collect();
    assert_eq!(shims(&w, 0), left);
    assert!(!w.agents[0].log_text().contains("this node was removed"), "it was told after all");
}
