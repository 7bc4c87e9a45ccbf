//! Machines that were off for longer than their certificates live, while every root that they knew was replaced.

use crate::seen::{connected, shown};
use crate::world::{World, eventually};

#[test]
fn machines_that_slept_through_two_rotations_and_beyond_their_certificates_come_back_by_themselves() {
    let mut w = World::with_lives("node = \"6s\"\norchestrator = \"6s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    let roles = ["node", "orchestrator"];
    w.agents[0].kill();
    w.orchestrator.as_mut().unwrap().kill();
    // The first ends once nobody is left who could need the root that goes.
    let signers = [(); 2].map(|()| w.json(&["root", "rotate"])["signer"].clone());
    assert_ne!(signers[0], signers[1]);
    let asleep = roles.map(|role| shown(&w, role));
    w.start_agent(0, &[]);
    w.start_orchestrator();
    connected(&w);
    for (role, before) in roles.iter().zip(&asleep) {
        let after = eventually("a new certificate", || {
            let now = shown(&w, role);
            (now["serial"] != before["serial"] && now["state"] == "ready").then_some(now)
        });
        assert_eq!(after["id"], before["id"], "under its own id");
    }
    let taken_back =
        |log: String| log.contains("took this node back by its key") || log.contains("took us back by our key");
    assert!(taken_back(w.agents[0].log_text()));
    assert!(taken_back(w.orchestrator.as_ref().unwrap().log_text()));
    // They work with roots that they had never heard of.
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    crate::shims::assert_running(&w, 1);
}
