//! A node that is removed while nobody reaches it: what its services said of their expiry counts, until it reaches a vault.

use super::deploy;
use crate::seen::{log, shown};
use crate::shims::{assert_running, shims};
use crate::world::{World, eventually};
use rustix::process::Signal;

/// Removes the node while it hears nothing: it does not run then, and its connection is gone; later there is nobody. Returns
/// once it has looked for a vault.
fn remove_unheard(w: &mut World) {
    let id = shown(w, "node")["id"].as_str().unwrap().to_owned();
    w.orchestrator.as_mut().unwrap().kill();
    w.agents[0].signal(Signal::STOP);
    w.restart_vault();
    w.ok(&["node", "rm", &id]);
    w.kill_vault();
    let misses = |w: &World| w.agents[0].log_text().matches("no stream to the vault").count();
    let before = misses(w);
    w.agents[0].signal(Signal::CONT);
    eventually("the node to look for a vault", || (misses(w) > before).then_some(()));
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
    remove_unheard(&mut w);
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

#[test]
fn a_removed_node_that_was_cut_off_ends_what_runs_once_it_reaches_a_vault() {
    let mut w = World::founded();
    w.add_orchestrator();
    w.add_node("eu");
    deploy(&w, "stays", "");
    assert_running(&w, 1);
    let runs = shims(&w, 0);
    remove_unheard(&mut w);
    assert_eq!(shims(&w, 0), runs);
    w.start_vault();
    w.unlock();
    // Its certificate is as good as ever and gets it nowhere: it proves its key, and obeys what is signed.
    eventually("what runs there to be ended", || shims(&w, 0).is_empty().then_some(()));
    let said = w.agents[0].log_text();
    assert!(said.contains("this node was removed from its cluster: its tasks end"), "{said}");
    let text = log(&w);
    assert!(text.contains("it was removed, proves its key, and is told so"), "{text}");
    assert_eq!(shown(&w, "node")["state"], "removed");
    // It needs nobody to tell it once more.
    w.agents[0].kill();
    w.kill_vault();
    w.start_agent(0, &[]);
    eventually("the next agent to obey", || {
        (w.agents[0].log_text().matches("this node was removed from its cluster: its tasks end").count() >= 2)
            .then_some(())
    });
}
