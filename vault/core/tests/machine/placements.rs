//! Sensitive services: their first placement on a node is told at once, and held for an approver or for the delay.

use crate::world::{Machine, World};
use holdfast_vault_core::{Code, Refusal};
use holdfast_wire::v1;
use v1::command::Action;

const MINUTE: i64 = 60_000;

/// `shop/vip`, sensitive, beside `shop/web`.
fn shop() -> (World, Machine, Machine) {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { sensitive: true, ..w.spec("vip", 1, &["db2"]) };
    w.put_secret("db2", 1, b"value", &["shop/vip"]).unwrap();
    let st = w.sign(&spec, &["cleo", "dora"]);
    w.submit(&st, &[]).unwrap();
    (w, orch, node)
}

fn ask(w: &mut World, orch: &Machine, node: &Machine) -> Result<(), Refusal> {
    w.keep_lease(orch).unwrap();
    let ask = w.ask("vip", node, 1);
    w.grant(orch, ask).map(drop)
}

fn approve(service: &str, node: &Machine) -> Action {
    let (namespace, service) = ("shop".into(), service.into());
    Action::ApprovePlacement(v1::ApprovePlacement { namespace, service, node_id: node.id.clone() })
}

#[test]
fn a_first_placement_that_nobody_approves_is_told_and_held_for_a_quarter_of_an_hour() {
    let (mut w, orch, node) = shop();
    let from = w.leaves.len();
    let refused = ask(&mut w, &orch, &node).err().unwrap();
    assert_eq!(
        (refused.code, w.kinds_since(from)),
        (Code::Pending, vec!["grant.denied".into(), "alarm/first-placement".into()])
    );
    assert_eq!(w.state.held_placements(w.now).count(), 1);
    w.pass(14 * MINUTE);
    let from = w.leaves.len();
    assert_eq!(ask(&mut w, &orch, &node).err().unwrap().code, Code::Pending);
    assert!(!w.kinds_since(from).contains(&"alarm/first-placement".to_owned()), "told once");
    w.pass(MINUTE);
    assert_eq!(w.state.held_placements(w.now).count(), 0);
    ask(&mut w, &orch, &node).unwrap();
    ask(&mut w, &orch, &node).unwrap();
    let other = w.node();
    assert_eq!(ask(&mut w, &orch, &other).err().unwrap().code, Code::Pending, "each node is a first placement");
}

#[test]
fn an_approver_of_the_namespace_ends_the_wait() {
    let (mut w, orch, node) = shop();
    for (who, code) in [("cleo", Code::PolicyDenied), ("oz", Code::PolicyDenied)] {
        assert_eq!(w.act(&[who], approve("vip", &node)).err().unwrap().code, code, "{who}");
    }
    assert_eq!(w.act(&["pat"], approve("none", &node)).err().unwrap().code, Code::NotFound);
    let nobody = Machine { id: "node-ff".into(), ..w.node() };
    assert_eq!(w.act(&["pat"], approve("vip", &nobody)).err().unwrap().code, Code::NotFound);
    assert_eq!(ask(&mut w, &orch, &node).err().unwrap().code, Code::Pending);
    w.act(&["pat"], approve("vip", &node)).unwrap();
    ask(&mut w, &orch, &node).unwrap();
}

#[test]
fn asking_long_ahead_saves_no_wait() {
    let (mut w, orch, node) = shop();
    assert_eq!(ask(&mut w, &orch, &node).err().unwrap().code, Code::Pending);
    w.pass(23 * 60 * MINUTE + 59 * MINUTE);
    let fresh = w.spec("vip", 2, &["db2"]);
    let fresh = v1::Spec { sensitive: true, ..fresh };
    let st = w.sign(&fresh, &["cleo", "dora"]);
    w.submit(&st, &[]).unwrap();
    w.pass(2 * MINUTE);
    let from = w.leaves.len();
    assert_eq!(ask(&mut w, &orch, &node).err().unwrap().code, Code::Pending, "a day later it is asked anew");
    assert!(w.kinds_since(from).contains(&"alarm/first-placement".to_owned()));
}

#[test]
fn a_plain_service_waits_for_nobody_and_a_new_service_of_the_name_waits_again() {
    let (mut w, orch, node) = shop();
    let plain = w.ask("web", &node, 1);
    w.grant(&orch, plain).unwrap();
    w.act(&["pat"], approve("vip", &node)).unwrap();
    let remove = v1::RemoveService { namespace: "shop".into(), service: "vip".into() };
    w.act(&["cleo", "dora"], Action::RemoveService(remove)).unwrap();
    let again = v1::Spec { sensitive: true, ..w.spec("vip", 2, &["db2"]) };
    let st = w.sign(&again, &["cleo", "dora"]);
    w.submit(&st, &[]).unwrap();
    assert_eq!(ask(&mut w, &orch, &node).err().unwrap().code, Code::Pending);
}
