//! What the vault denies an orchestrator, however it asks.

use super::super::world::{World, eventually};
use super::orchestrator::Evil;
use super::{VALUE, node_ids, shims};
use holdfast_transport::failure::FailureKind;
use holdfast_wire::v1::{RequestGrantsRequest, grant_result};

#[test]
fn a_grant_for_a_secret_that_the_service_may_not_read_is_denied_by_name() {
    let mut w = World::everything();
    w.add_node("eu");
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let home = w.running("shop/web")[0]["node"].as_str().unwrap().to_owned();
    w.put_secret("shop/db-password", VALUE, &["--reader", "shop/backup"]);
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    eventually("the lease of the namespace", || evil.lease("shop"));
    let other = node_ids(&w).into_iter().find(|n| *n != home).unwrap();
    for (node, task) in [(&other, "shop.web.2"), (&other, "shop.web.1"), (&home, "shop.web.1")] {
        match evil.ask(node, task) {
            grant_result::Result::Denied(denied) => {
                assert_eq!(denied.code, "policy-denied", "{denied:?}");
                assert!(denied.policies.iter().any(|p| p == "L1-mount"), "{denied:?}");
            }
            grant_result::Result::Issued(_) => panic!("the vault granted {task} on {node}"),
        }
    }
    let log = eventually("the denials in the log", || {
        let log = w.ok(&["log", "tail", "-n", "100"]);
        (log.lines().filter(|l| l.contains("grant.denied") && l.contains("L1-mount")).count() >= 3).then_some(log)
    });
    assert!(log.lines().any(|l| l.contains("grant.denied") && l.contains("shop/web") && l.contains(&other)), "{log}");
    // What ran under the old right was taken back; nothing new began.
    eventually("the task to end", || {
        (w.running("shop/web").is_empty() && shims(&w, 0).len() + shims(&w, 1).len() == 0).then_some(())
    });
    // The right back, and the service grows again.
    drop(evil);
    w.put_secret("shop/db-password", VALUE, &["--reader", "shop/web"]);
    w.start_orchestrator();
    w.ok(&["service", "scale", "shop/web=2"]);
    eventually("a second replica", || (w.running("shop/web").len() == 2).then_some(()));
}

#[test]
fn a_request_whose_answer_was_lost_is_answered_the_same_and_its_id_is_good_for_no_other() {
    let mut w = World::everything();
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1), "--detach"]);
    eventually("the lease of the namespace", || evil.lease("shop"));
    let node = node_ids(&w).remove(0);
    let request = Evil::wish(&node, "shop.web.1");
    let outcome = || match evil.send(&request).unwrap() {
        grant_result::Result::Issued(issued) => issued,
        grant_result::Result::Denied(denied) => panic!("{denied:?}"),
    };
    let (first, again) = (outcome(), outcome());
    assert_eq!((&again.grant, &again.boxes), (&first.grant, &first.boxes));
    assert_eq!(again.receipt.unwrap().entry, first.receipt.unwrap().entry);
    let grants = w.json(&["grant", "ls", "--all"])["grants"].as_array().unwrap().len();
    assert_eq!(grants, 1, "it was granted again");

    // C29.
    let other = RequestGrantsRequest { requests: Evil::wish(&node, "shop.web.2").requests, ..request.clone() };
    let refused = evil.send(&other).unwrap_err();
    assert_eq!((refused.kind, refused.code.as_ref()), (FailureKind::Invalid, "invalid-input"), "{refused}");
    assert_eq!(w.json(&["grant", "ls", "--all"])["grants"].as_array().unwrap().len(), grants);
}
