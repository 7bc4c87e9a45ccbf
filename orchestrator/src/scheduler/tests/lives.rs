//! How tasks end, and what follows: rollouts, scaling, restarts, drained and removed nodes.

use super::world::*;
use crate::scheduler::*;
use holdfast_wire::v1::{self, Spec};

#[test]
fn a_new_version_replaces_one_task_after_the_other() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    w.run();
    w.settle();
    let v2 = Spec { command: vec!["new".into()], ..spec(2, 2) };
    w.service(&[spec(1, 2), v2]);
    w.run();
    for round in 1..=2 {
        let stops = w.stops();
        assert_eq!(stops.len(), round, "one at a time");
        let (_, stopped, fence) = stops.last().unwrap().clone();
        assert_eq!(fence, 7);
        let slot = TaskId::parse(&stopped).unwrap().slot();
        let id = w.live(slot).unwrap();
        w.ends(&id, "stopped", 143);
        assert_eq!(w.stops().len(), round, "the next one waits until this one is well");
        w.settle();
    }
    w.keep_lease_and_wait(60);
    let live = w.grants.values().filter(|g| g.state == "running");
    let versions: Vec<u64> = live.map(|g| g.version).collect();
    assert_eq!((versions, w.placed.len()), (vec![2, 2], 4));
}

#[test]
fn a_new_version_that_fails_halts_its_rollout() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    w.run();
    w.settle();
    w.service(&[spec(1, 2), Spec { command: vec!["broken".into()], ..spec(2, 2) }]);
    w.run();
    let slot = TaskId::parse(&w.stops()[0].1).unwrap().slot();
    let old = w.live(slot).unwrap();
    w.ends(&old, "stopped", 0);
    let new = w.live(slot).unwrap();
    w.becomes(&new, "running", "running");
    w.ends(&new, "failed", 1);
    w.keep_lease_and_wait(60);
    assert_eq!(w.stops().len(), 1, "no task of the old version is stopped for it any more");
    let other = if slot == 1 { 2 } else { 1 };
    assert_eq!(w.grants[&w.live(other).unwrap()].version, 1);
}

#[test]
fn a_stopped_task_is_replaced_once_the_vault_knows() {
    let mut w = World::new(2);
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let (id, n) = (w.live(1).unwrap(), w.node_of(1));
    w.s.task_over(&n, &id);
    w.keep_lease_and_wait(5);
    assert_eq!(w.placed.len(), 1, "its node says so, the directory not yet");
    w.ends(&id, "failed", 1);
    assert_eq!(w.placed.len(), 1);
    w.keep_lease_and_wait(2);
    assert_eq!(w.placed.len(), 2);
}

#[test]
fn scaling_down_stops_tasks_and_scaling_changes_nothing_else() {
    let mut w = World::new(2);
    w.service(&[spec(1, 3)]);
    w.run();
    w.settle();
    w.service(&[spec(1, 3), spec(2, 1)]);
    w.run();
    let stopped: Vec<String> = w.stops().into_iter().map(|(_, t, _)| t).collect();
    assert_eq!(stopped, ["shop.web.3", "shop.web.2"]);
    for slot in [2, 3] {
        let id = w.live(slot).unwrap();
        w.ends(&id, "stopped", 143);
    }
    w.keep_lease_and_wait(120);
    assert_eq!((w.placed.len(), w.live_count(), w.stops().len()), (3, 1, 2));
}

#[test]
fn an_order_to_stop_is_said_again_to_a_node_that_comes_back() {
    let mut w = World::new(1);
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let id = w.live(1).unwrap();
    w.s.session_closed(w.now, &node(1));
    w.shown(Shown::ServiceGone(v1::ServiceKey { namespace: "shop".into(), service: "web".into() }));
    w.run();
    assert!(w.stops().is_empty());
    w.greet(1, &[id]);
    w.run();
    assert_eq!(w.stops().len(), 1);
}

#[test]
fn a_task_is_restarted_as_its_service_says() {
    for (policy, exit_code, again) in [
        ("always", 0, true),
        ("always", 1, true),
        ("on-failure", 0, false),
        ("on-failure", 1, true),
        ("never", 1, false),
    ] {
        let mut w = World::new(1);
        let s = Spec { restart: policy.into(), ..spec(1, 1) };
        w.service(std::slice::from_ref(&s));
        w.run();
        w.settle();
        let id = w.live(1).unwrap();
        w.ends(&id, if again { "failed" } else { "done" }, exit_code);
        w.keep_lease_and_wait(120);
        assert_eq!(w.live(1).is_some(), again, "{policy} after {exit_code}");
        // Nor does another picture of the directory, or another lease, start it again.
        w.s.vault_lost(w.now);
        w.node_is(1, "ready", true);
        w.done.extend((!again).then_some(1));
        w.service(std::slice::from_ref(&s));
        w.s.leases(w.now, &[]);
        for view in w.grants.clone().into_values() {
            w.shown(Shown::Grant(view));
        }
        w.synced();
        w.keep_lease_and_wait(120);
        assert_eq!(w.live(1).is_some(), again, "{policy} after {exit_code} and another picture");
        // Nor does another process that is shown none of its grants, nor a version that only adds another task.
        w.s = World::new(1).s;
        w.grants.retain(|_, g| g.state != "ended");
        w.service(&[s.clone(), Spec { version: 2, replicas_min: 2, replicas_max: 2, ..s }]);
        for view in w.grants.clone().into_values() {
            w.shown(Shown::Grant(view));
        }
        w.keep_lease_and_wait(120);
        assert_eq!((w.live(1).is_some(), w.live(2).is_some()), (again, true), "{policy} after {exit_code}, forgotten");
    }
}

#[test]
fn a_task_that_fails_at_once_is_placed_ever_more_slowly() {
    let mut w = World::new(1);
    w.service(&[spec(1, 1)]);
    w.run();
    for _ in 0..300 {
        if let Some(id) = w.live(1) {
            w.ends(&id, "failed", 1);
        }
        w.keep_lease_and_wait(1);
    }
    assert!((8..=14).contains(&w.placed.len()), "{}", w.placed.len());
}

#[test]
fn a_drained_nodes_tasks_move_and_a_removed_nodes_tasks_are_replaced_at_once() {
    let mut w = World::new(2);
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let n = if w.node_of(1) == node(1) { 1 } else { 2 };
    w.node_is(n, "draining", true);
    w.run();
    w.settle();
    let moved: Vec<_> = w.stops();
    assert_eq!((moved.len(), moved[0].0.clone()), (1, node(n)));
    let old: Vec<_> = w
        .grants
        .iter()
        .filter(|(_, g)| g.state == "running" && g.node_id == node(n).as_str())
        .map(|(id, _)| *id)
        .collect();
    w.ends(&old[0], "stopped", 143);
    assert_eq!(w.live_count(), 1);

    let mut w = World::new(2);
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let n = if w.node_of(1) == node(1) { 1 } else { 2 };
    let id = w.live(1).unwrap();
    w.becomes(&id, "revoked", "");
    w.node_is(n, "removed", false);
    w.run();
    assert_eq!((w.live_count(), w.node_of(1)), (1, node(3 - n)));
}

#[test]
fn the_vault_is_asked_to_let_protected_tasks_go_until_it_does() {
    let mut w = World::new(2);
    w.protects = true;
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let old = w.live(1).unwrap();
    w.service(&[spec(1, 1), Spec { command: vec!["other".into()], ..spec(2, 1) }]);
    w.keep_lease_and_wait(40);
    assert!(w.stops().is_empty(), "its node would refuse, and hold it against us");
    assert_eq!(w.released(), [old; 3], "now, after 15 s and after 30 s");
    assert_eq!(w.placed.len(), 1);
    w.protects = false;
    w.keep_lease_and_wait(15);
    w.ends(&old, "stopped", 0);
    w.run();
    assert_eq!(w.placed.last().unwrap().version, 2);
    let asked = w.released().len();
    w.keep_lease_and_wait(20);
    assert_eq!(w.released().len(), asked, "what is gone is not asked for");
}

#[test]
fn work_whose_version_is_not_shown_any_more_is_known_by_its_template() {
    let mut w = World::unsynced();
    w.lease(60);
    w.node_is(1, "ready", true);
    w.template = holdfast_wire::specs::template(&spec(1, 1)).to_vec();
    w.service(&[spec(2, 1), spec(3, 1)]);
    let id = w.issue("shop.web.1", "node-1", 1);
    w.becomes(&id, "running", "running");
    w.greet(1, &[id]);
    w.synced();
    w.keep_lease_and_wait(60);
    assert!(w.stops().is_empty() && w.placed.is_empty(), "it was only scaled, twice, while nobody scheduled");
    w.service(&[spec(3, 1), Spec { command: vec!["other".into()], ..spec(4, 1) }]);
    w.keep_lease_and_wait(10);
    assert_eq!(w.stops().len(), 1);
}

#[test]
fn a_protected_task_that_was_kept_while_its_node_was_lost_is_asked_for_when_its_service_changes() {
    let mut w = World::new(1);
    w.protects = true;
    w.service(&[spec(1, 1)]);
    w.run();
    w.settle();
    let old = w.live(1).unwrap();
    w.s.session_closed(w.now, &node(1));
    w.node_is(1, "ready", false);
    w.keep_lease_and_wait(40);
    assert_eq!(w.released().first(), Some(&old), "its node is lost");
    w.node_is(1, "ready", true);
    w.greet(1, &[old]);
    w.keep_lease_and_wait(40);
    let before = w.released().len();
    w.service(&[spec(1, 1), Spec { command: vec!["other".into()], ..spec(2, 1) }]);
    w.keep_lease_and_wait(20);
    assert!(w.released().len() > before, "nobody asks for it any more");
    assert!(w.stops().is_empty());
}

#[test]
fn a_protected_task_that_is_wanted_again_before_it_was_let_go_is_kept() {
    let mut w = World::new(2);
    w.protects = true;
    let (first, other) = (spec(1, 1), Spec { command: vec!["other".into()], ..spec(2, 1) });
    w.service(std::slice::from_ref(&first));
    w.run();
    w.settle();
    let old = w.live(1).unwrap();
    w.service(&[first, other.clone()]);
    w.keep_lease_and_wait(5);
    assert_eq!(w.released(), [old]);
    w.service(&[other, spec(3, 1)]);
    w.keep_lease_and_wait(20);
    // What was placed in between is one too many: that one is let go.
    w.protects = false;
    w.keep_lease_and_wait(20);
    let over: Vec<_> = w.grants.iter().filter(|(_, g)| g.state == "revoked").map(|(id, _)| *id).collect();
    over.iter().for_each(|id| w.ends(id, "stopped", 0));
    let asked = w.released().len();
    w.keep_lease_and_wait(120);
    assert_eq!((w.live(1), w.live_count()), (Some(old), 1));
    assert_eq!(w.released().len(), asked, "asked for without end");
}
