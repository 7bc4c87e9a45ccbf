//! The holder of a lease that another took over, with a grant that it held back: it gets nothing, and no node obeys it.

use super::super::second::{Second, lease, taken_over};
use super::super::world::{World, eventually};
use super::orchestrator::Evil;
use super::{VALUE, evidence, node_ids, shims};
use holdfast_wire::v1::{Stop, grant_result};

#[test]
fn after_a_takeover_the_holder_before_gets_no_grant_and_no_node_follows_its_orders() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let second = Second::beside(&w);
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    let node = node_ids(&w).remove(0);
    let fence = eventually("the lease of the namespace", || evil.lease("shop"));
    w.ok(&["service", "deploy", "-f", &w.web_spec(2), "--detach"]);
    let held_back = evil.genuine(&node, "shop.web.2");
    evil.lets_its_leases_end();
    taken_over(&w, &second.id, || ());
    assert_eq!(lease(&w).unwrap()["fence"], fence + 1);
    // The next holder knows of the grant and that nobody carries it: it places the task anew.
    eventually("both tasks under the next holder", || (w.running("shop/web").len() == 2).then_some(()));
    let before = shims(&w, 0);
    assert_eq!(before.len(), 2);

    let answer = evil.assign(&node, &held_back);
    let refused = ["fence", "task-gen", "grant-consumed"].contains(&answer.check.as_str());
    assert!(!answer.accepted && refused, "{answer:?}");
    let stop = Stop { task_id: "shop.web.1".into(), namespace: "shop".into(), timeout_ms: 1, ..Stop::default() };
    for (code, fence) in [("fence", fence), ("stop-holder", fence + 1)] {
        evil.stop(&node, Stop { fence, ..stop.clone() });
        evidence(&w, code);
    }
    match evil.ask(&node, "shop.web.1") {
        grant_result::Result::Denied(denied) => assert_eq!(denied.policies, ["L0-lease"], "{denied:?}"),
        grant_result::Result::Issued(_) => panic!("the vault granted a task without a lease"),
    }
    assert_eq!(shims(&w, 0), before, "something was started or stopped");
    assert_eq!(w.running("shop/web").len(), 2);
}
