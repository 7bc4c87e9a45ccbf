//! A token that is lost for good, with the only copy of the root's key in it: nobody is locked out.

use super::token::{found, fresh, root_key, signal_worker, start, with_token};
use crate::seen::alarm;
use crate::world::eventually;
use rustix::process::Signal;

#[test]
fn a_cluster_whose_token_is_lost_for_good_gets_another_root_that_its_admins_sign_for() {
    let (mut w, token) = with_token("", fresh, "");
    found(&w, &token);
    w.add_node("eu");
    let before = w.json(&["root", "status"])["signer"].clone();
    token.pull(true);
    signal_worker(w.vault.as_ref().unwrap().pid(), Signal::KILL);
    eventually("the fault to be named", || alarm(&w, "token"));
    // None is made in a token that is said to be lost.
    assert!(w.refused(&["root", "rotate", "--without-old-root"], 2).contains("lost"));

    // The new root is certified by nothing that a node knows, so each one alive is waited for, also one that sleeps.
    w.agents[0].kill();
    w.ok(&["root", "rotate", "--software", "--without-old-root", "--detach"]);
    let waits = eventually("the root to be trusted", || {
        let now = w.json(&["root", "status"]);
        now["waits_for"].as_str().is_some_and(|t| t.contains("has not said yet")).then_some(now)
    });
    assert_eq!((waits["phase"].as_str(), &waits["signer"]), (Some("distributing"), &before), "{waits}");
    w.start_agent(0, &[]);
    let done = eventually("the rotation to end", || {
        let now = w.json(&["root", "status"]);
        (now["phase"] == "stable" && now["signer"] != before).then_some(now)
    });
    assert_eq!((root_key(&w).as_str(), done["trusted"].as_array().unwrap().len()), ("software", 1), "{done}");

    // The new root signs whatever comes, under another process as well, and the old machines are there.
    w.ok(&["root", "rotate"]);
    w.kill_vault();
    start(&mut w, &token);
    w.unlock();
    w.add_node("eu");
    eventually("both nodes to be connected", || {
        let all = w.json(&["node", "ls"]);
        let nodes = all["nodes"].as_array()?.iter().filter(|n| n["role"] == "node");
        (nodes.filter(|n| n["connected"] == true).count() == 2).then_some(())
    });
    w.ok(&["log", "verify"]);
}
