//! Good grants at the wrong time, and orders that only the vault may give.

use super::super::world::{World, eventually};
use super::orchestrator::Evil;
use super::{VALUE, assert_honest_work_goes_on, assert_untouched, evidence, node_ids, shims};
use holdfast_transport::now;
use holdfast_wire::statement;
use holdfast_wire::v1::{Assign, Grant, Stop};
use std::fs;

fn grant_of(assign: &Assign) -> Grant {
    statement::peek(assign.grant.as_ref().unwrap()).unwrap()
}

/// A node and the story's service, declared, with nothing running and the orchestrator turned evil.
fn betrayed(lives: &'static str) -> (World, Evil, String) {
    let mut w = World::with_lives(lives);
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1), "--detach"]);
    let node = node_ids(&w).remove(0);
    (w, evil, node)
}

#[test]
fn c14_a_grant_that_was_held_back_starts_nothing() {
    let (mut w, evil, node) = betrayed("start_before = \"2s\"");
    let stale = evil.genuine(&node, "shop.web.1");
    let end = grant_of(&stale).start_before_ms;
    eventually("the grant's time to pass", || (now().0 > end).then_some(()));
    evil.refused(&node, &stale, "start-before");
    evidence(&w, "start-before");
    assert_untouched(&w, 0);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

#[test]
fn c13_an_older_generation_of_a_task_starts_nothing_after_a_newer_one() {
    let (mut w, evil, node) = betrayed("");
    let older = evil.genuine(&node, "shop.web.1");
    let newer = evil.genuine(&node, "shop.web.1");
    assert!(grant_of(&older).task_gen < grant_of(&newer).task_gen);
    assert!(evil.assign(&node, &newer).accepted);
    eventually("the newer one to run", || (shims(&w, 0).len() == 1).then_some(()));
    let before = shims(&w, 0);
    evil.refused(&node, &older, "task-gen");
    evidence(&w, "task-gen");
    assert_eq!(shims(&w, 0), before);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

#[test]
fn c24_a_protected_task_survives_an_orchestrator_that_stops_all_it_may() {
    let mut w = World::everything();
    let image = w.busybox();
    let spec = w.write_spec(
        "keep",
        &format!(
            "name = \"keep\"\nnamespace = \"shop\"\nimage = {image:?}\nprotected = true\n\
             command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
        ),
    );
    w.ok(&["service", "deploy", "-f", &spec]);
    let task = w.running("shop/keep")[0]["task"].as_str().unwrap().to_owned();
    let before = shims(&w, 0);
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    let node = node_ids(&w).remove(0);
    let fence = eventually("the lease of the namespace", || evil.lease("shop"));
    evil.stop(&node, Stop { task_id: task, namespace: "shop".into(), fence, timeout_ms: 1, ..Stop::default() });
    evidence(&w, "protected");
    assert_eq!(shims(&w, 0), before);
    assert_eq!(w.running("shop/keep").len(), 1);
    // Its owner's change is carried out all the same, by the honest one: the vault lets the old task go.
    drop(evil);
    w.start_orchestrator();
    let changed = fs::read_to_string(&spec).unwrap().replace("3600", "7200");
    w.ok(&["service", "deploy", "-f", &w.write_spec("changed", &changed)]);
    eventually("the changed task alone", || (shims(&w, 0).len() == 1 && shims(&w, 0) != before).then_some(()));
    // The vault's own word ends it.
    w.ok(&["service", "rm", "shop/keep"]);
    eventually("the task to end", || shims(&w, 0).is_empty().then_some(()));
}
