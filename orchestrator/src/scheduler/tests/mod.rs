//! What is placed, and when not: leases, the directory, grants and their answers. Ends and rollouts: [`lives`].

mod lives;
mod world;

use super::*;
use holdfast_transport::failure::Failure;
use holdfast_wire::v1::{GrantDenied, ServiceKey, Spec};
use world::*;

#[test]
fn what_is_wanted_is_asked_for_and_handed_to_its_nodes() {
    let mut w = World::new(3);
    w.service(&[spec(1, 3)]);
    w.run();
    assert_eq!((w.placed.len(), w.assigned()), (3, 3));
    let nodes: BTreeSet<_> = (1..=3).map(|slot| w.node_of(slot)).collect();
    assert_eq!(nodes.len(), 3, "one a node");
    assert!(w.placed.iter().all(|r| r.version == 1 && r.namespace == "shop"));
    w.settle();
    assert_eq!(w.placed.len(), 3);
    assert_eq!(w.s.nodes_of(&ServiceRef::of("shop", "web").unwrap(), Some(&task(1))), [w.node_of(1)].into());
}

#[test]
fn nothing_is_placed_without_a_lease() {
    let mut w = World::unsynced();
    w.node_is(1, "ready", true);
    w.greet(1, &[]);
    w.synced();
    w.service(&[spec(1, 1)]);
    w.run();
    assert_eq!(w.orders, [Order::KeepLease], "the lease is asked for at once");
    assert!(w.placed.is_empty());
    w.lease(60);
    w.run();
    assert_eq!(w.placed.len(), 1);
    // The lease runs out unheard: what runs stays, and nothing is done about it.
    w.settle();
    let id = w.live(1).unwrap();
    w.wait(Duration::from_secs(61));
    w.ends(&id, "failed", 1);
    w.wait(Duration::from_secs(120));
    assert_eq!((w.placed.len(), w.stops().len()), (1, 0));
    w.lease(60);
    w.run();
    assert_eq!(w.placed.len(), 2);
}

#[test]
fn nothing_is_placed_before_the_directory_is_complete() {
    let mut w = World::unsynced();
    w.lease(60);
    w.node_is(1, "ready", true);
    w.greet(1, &[]);
    w.service(&[spec(1, 1)]);
    w.run();
    assert!(w.placed.is_empty());
    w.synced();
    w.run();
    assert_eq!(w.placed.len(), 1);
}

#[test]
fn after_a_restart_running_tasks_are_kept_and_grants_that_nobody_holds_are_given_back() {
    let mut w = World::unsynced();
    w.node_is(1, "ready", true);
    w.node_is(2, "ready", true);
    w.service(&[spec(1, 3)]);
    let runs = w.issue("shop.web.1", "node-1", 1);
    w.becomes(&runs, "running", "running");
    let (taken, lost) = (w.issue("shop.web.2", "node-1", 1), w.issue("shop.web.3", "node-2", 1));
    w.synced();
    w.lease(60);
    w.run();
    assert!(w.placed.is_empty() && w.released().is_empty(), "who holds them is told by the nodes");
    w.greet(1, &[runs, taken]);
    w.greet(2, &[]);
    w.run();
    assert_eq!(w.released(), [lost]);
    assert_eq!(w.placed.len(), 1);
    assert_eq!(w.placed[0].task_id, "shop.web.3");
    assert_eq!((w.live(1), w.live(2)), (Some(runs), Some(taken)));
}

#[test]
fn who_waits_for_a_lease_gives_nothing_back_and_ends_later_what_it_took_over() {
    let mut w = World::unsynced();
    w.node_is(1, "ready", true);
    w.greet(1, &[]);
    w.service(&[spec(1, 2)]);
    w.synced();
    // The holder of the lease places tasks on a node that has sessions with both.
    let (runs, lost) = (w.issue("shop.web.1", "node-1", 1), w.issue("shop.web.2", "node-1", 1));
    w.run();
    assert!(w.released().is_empty(), "the node did not tell us of it: that is no reason");
    w.becomes(&runs, "running", "running");
    w.run();
    // It dies before the node was given the second.
    w.lease(60);
    w.run();
    assert_eq!(w.released(), [lost]);
    assert_eq!(w.placed.iter().map(|r| r.task_id.as_str()).collect::<Vec<_>>(), ["shop.web.2"]);
    w.settle();
    assert_eq!(w.live(1), Some(runs));
    w.shown(Shown::ServiceGone(ServiceKey { namespace: "shop".into(), service: "web".into() }));
    w.run();
    assert_eq!(w.stops().len(), 2, "what was taken over ends as what was placed");
}

#[test]
fn a_lost_nodes_tasks_are_given_back_and_placed_elsewhere() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    w.run();
    w.settle();
    let slot = (1..=2).find(|s| w.node_of(*s) == node(1)).unwrap();
    let id = w.live(slot).unwrap();
    w.s.session_closed(w.now, &node(1));
    w.node_is(1, "ready", false);
    w.keep_lease_and_wait(29);
    assert!(w.released().is_empty(), "it may come back");
    w.keep_lease_and_wait(2);
    assert_eq!(w.released(), [id]);
    assert_eq!(w.node_of(slot), node(2));
    assert_eq!(w.live_count(), 2);
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_tasks() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    w.run();
    w.settle();
    w.s.session_closed(w.now, &node(1));
    w.keep_lease_and_wait(20);
    let held: Vec<_> = w.grants.iter().filter(|(_, g)| g.node_id == "node-1").map(|(id, _)| *id).collect();
    w.greet(1, &held);
    w.keep_lease_and_wait(60);
    assert!(w.released().is_empty());
    assert_eq!(w.placed.len(), 2);
}

#[test]
fn an_exclusive_task_of_a_lost_node_is_replaced_only_at_the_end_of_its_grant() {
    let mut w = World::new(2);
    w.service(&[Spec { exclusive: true, ..spec(1, 1) }]);
    w.run();
    w.settle();
    let id = w.live(1).unwrap();
    let n = if w.node_of(1) == node(1) { 1 } else { 2 };
    w.s.session_closed(w.now, &node(n));
    w.node_is(n, "ready", false);
    w.keep_lease_and_wait(40);
    assert_eq!((w.released(), w.live_count()), (vec![id], 0));
    w.grants.remove(&id);
    w.shown(Shown::GrantGone(id.to_vec()));
    w.run();
    assert_eq!(w.node_of(1), node(3 - n));
}

#[test]
fn a_denied_service_is_tried_on_another_node_and_denials_are_spaced_out() {
    let mut w = World::new(2);
    w.refuse = |r| {
        let policies = vec!["L0-zone".into()];
        (r.node_id == "node-1").then(|| GrantDenied { code: "policy-denied".into(), reason: "zone".into(), policies })
    };
    w.service(&[spec(1, 2)]);
    w.run();
    assert_eq!((w.placed.len(), w.live_count()), (2, 1), "one a node, one of them denied");
    w.keep_lease_and_wait(2);
    assert_eq!(w.live_count(), 2);
    assert_eq!((w.node_of(1), w.node_of(2)), (node(2), node(2)));

    let mut w = World::new(1);
    w.refuse = |_| Some(GrantDenied { code: "policy-denied".into(), reason: "no".into(), policies: vec![] });
    w.service(&[spec(1, 1)]);
    w.run();
    w.keep_lease_and_wait(300);
    assert!((6..=12).contains(&w.placed.len()), "1 s apart, then 2, 4 … 60: {}", w.placed.len());
}

#[test]
fn a_first_placement_that_is_held_is_asked_for_on_its_node_alone() {
    let mut w = World::new(20);
    w.refuse = |_| Some(GrantDenied { code: "pending".into(), reason: "held".into(), policies: vec![] });
    w.service(&[spec(1, 1)]);
    w.run();
    w.keep_lease_and_wait(300);
    assert!(w.placed.len() > 5, "it is asked for again: {}", w.placed.len());
    let nodes: std::collections::BTreeSet<_> = w.placed.iter().map(|r| r.node_id.clone()).collect();
    assert_eq!(nodes.len(), 1, "each node that is asked for is an alarm: {nodes:?}");
}

#[test]
fn a_used_up_budget_pauses_its_namespace_until_it_is_free_again() {
    let mut w = World::new(1);
    w.refuse = |_| Some(GrantDenied { code: "budget-exhausted".into(), reason: "used up".into(), policies: vec![] });
    w.service(&[spec(1, 3)]);
    w.run();
    assert_eq!(w.placed.len(), 3);
    w.refuse = no_refusal;
    let minute = budget_again(w.now).since(w.now).as_secs();
    w.keep_lease_and_wait(minute - 1);
    assert_eq!(w.placed.len(), 3);
    w.keep_lease_and_wait(2);
    assert_eq!((w.placed.len(), w.live_count()), (6, 3));
}

#[test]
fn a_grant_whose_answer_was_lost_is_given_back() {
    let mut w = World::new(1);
    w.service(&[spec(1, 1)]);
    let orders = w.s.take_orders(w.now);
    let Some(Order::Request { ticket, requests }) = orders.into_iter().next() else { panic!("nothing asked") };
    // The vault commits it, and the connection breaks before the answer.
    let id = w.issue(&requests[0].task_id, &requests[0].node_id, 1);
    w.s.granted(w.now, ticket, Err(Failure::unavailable("connection-lost", "the connection broke")));
    w.run();
    assert_eq!(w.released(), [id]);
    w.keep_lease_and_wait(3);
    assert_eq!((w.placed.len(), w.live_count()), (1, 1));
}

#[test]
fn a_grant_for_a_node_that_left_meanwhile_is_given_back() {
    let mut w = World::new(1);
    w.service(&[spec(1, 1)]);
    let orders = w.s.take_orders(w.now);
    let Some(Order::Request { ticket, requests }) = orders.into_iter().next() else { panic!("nothing asked") };
    w.s.session_closed(w.now, &node(1));
    let result = w.grant(&requests[0]);
    w.s.granted(w.now, ticket, Ok(vec![result]));
    w.run();
    assert_eq!((w.released().len(), w.assigned(), w.live_count()), (1, 0, 0));
    w.greet(1, &[]);
    w.keep_lease_and_wait(2);
    assert_eq!((w.assigned(), w.live_count()), (1, 1));
}

#[test]
fn what_a_node_refuses_is_given_back_and_tried_elsewhere() {
    let mut w = World::new(2);
    w.service(&[spec(1, 1)]);
    w.run();
    let (id, n) = (w.live(1).unwrap(), w.node_of(1));
    w.s.assign_answered(w.now, &n, id, Some("status: too old"));
    w.run();
    assert_eq!(w.released(), [id]);
    w.keep_lease_and_wait(2);
    assert_ne!(w.node_of(1), n);
}

#[test]
fn requests_are_bounded_in_size_and_number() {
    let mut w = World::new(10);
    w.service(&[spec(1, 450)]);
    let orders = w.s.take_orders(w.now);
    let sizes: Vec<usize> = orders
        .iter()
        .map(|o| match o {
            Order::Request { requests, .. } => requests.len(),
            Order::Release { .. } | Order::Assign { .. } | Order::Stop { .. } | Order::KeepLease => 0,
        })
        .collect();
    assert_eq!(sizes, [MAX_REQUESTS, MAX_REQUESTS]);
    assert!(w.s.take_orders(w.now).is_empty(), "the next ones wait for an answer");
}

#[test]
fn what_another_picture_does_not_show_is_gone() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    w.run();
    w.settle();
    let gone = w.live(1).unwrap();
    w.s.vault_lost(w.now);
    w.run();
    w.grants.remove(&gone);
    (1..=2).for_each(|n| w.node_is(n, "ready", true));
    w.service(&[spec(1, 2)]);
    for view in w.grants.clone().into_values() {
        w.shown(Shown::Grant(view));
    }
    w.synced();
    w.run();
    assert_eq!((w.placed.len(), w.live_count()), (3, 2));
    assert!(w.released().is_empty() && w.stops().is_empty());
}

#[test]
fn over_another_connection_nothing_is_planned_before_its_picture_is_whole_and_nothing_is_asked_twice() {
    let mut w = World::new(2);
    w.service(&[spec(1, 2)]);
    let orders = w.s.take_orders(w.now);
    let [Order::Request { ticket, requests }] = orders.as_slice() else { panic!("{orders:?}") };
    w.s.vault_moved();
    (1..=2).for_each(|n| w.node_is(n, "ready", true));
    w.service(&[spec(1, 3)]);
    assert!(w.s.take_orders(w.now).is_empty());
    w.synced();
    let results = requests.iter().map(|r| w.grant(r)).collect();
    w.s.granted(w.now, *ticket, Ok(results));
    w.run();
    assert_eq!((w.placed.len(), w.assigned(), w.live_count()), (1, 3, 3), "only the third was still to be asked for");
}

#[test]
fn requests_whose_connection_broke_are_made_again() {
    let mut w = World::new(1);
    w.service(&[spec(1, 1)]);
    for _ in 0..5 {
        // More often than requests may be under way: none of them blocks the next.
        let orders = w.s.take_orders(w.now);
        assert!(matches!(orders.as_slice(), [Order::Request { .. }]), "{orders:?}");
        w.s.vault_lost(w.now);
        w.node_is(1, "ready", true);
        w.service(&[spec(1, 1)]);
        w.synced();
        w.lease(600);
        w.now = w.s.next_wake().unwrap().plus(Duration::from_secs(60));
        w.s.wake(w.now);
    }
    w.run();
    assert_eq!((w.assigned(), w.live_count()), (1, 1));
}
