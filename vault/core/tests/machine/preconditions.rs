//! What changed between prepare and apply is noticed by apply, from committed state alone.

use crate::world::{Machine, World};
use holdfast_vault_core::{Code, Command, GrantOrder};
use holdfast_wire::v1;
use v1::command::Action;

/// Prepares a grant, lets `change` happen, applies: the order is refused with a leaf, and nothing is granted.
fn refused_after(change: impl FnOnce(&mut World, &Machine, &Machine), why: &str) {
    let (mut w, orch, node) = World::shop();
    let p = w.prepare_grants(&orch, vec![w.ask("web", &node, 1)]).unwrap();
    change(&mut w, &orch, &node);
    let (from, live) = (w.leaves.len(), w.state.grants().count());
    let (_, done) = w.commit(Ok(p)).unwrap();
    let refusal = done.orders()[0].as_ref().unwrap_err();
    assert!(refusal.to_string().contains(why), "{refusal}");
    assert_eq!((w.kinds_since(from), w.state.grants().count()), (vec!["grant.denied".to_owned()], live));
}

#[test]
fn a_grant_is_refused_when_its_ground_moved_before_the_commit() {
    refused_after(
        |w, _, node| {
            drop(w.act(&["ada"], Action::SetDrain(v1::SetDrain { id: node.id.clone(), drain: true })).unwrap())
        },
        "node changed",
    );
    refused_after(|w, _, _| drop(w.put_secret("db", 2, b"new", &["shop/web"]).unwrap()), "secret changed");
    refused_after(
        |w, _, _| {
            drop(
                w.act(
                    &["cleo"],
                    Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "web".into() }),
                )
                .unwrap(),
            )
        },
        "no service",
    );
    refused_after(
        |w, _, _| {
            for v in [2, 3] {
                let spec = w.spec("web", v, &["db"]);
                w.deploy(&spec).unwrap();
            }
        },
        "not active any more",
    );
    refused_after(
        |w, orch, _| drop(w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: orch.id.clone() })).unwrap()),
        "L0-lease",
    );
    refused_after(
        |w, _, _| drop(w.act(&["oz"], Action::Lockdown(v1::Lockdown::default())).unwrap()),
        "L0-lockdown-grant",
    );
    refused_after(
        |w, _, _| {
            drop(w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap())
        },
        "mandate ended",
    );
    refused_after(|w, orch, node| drop(w.grant(orch, w.ask("web", node, 1)).unwrap()), "granted meanwhile");
}

#[test]
fn a_grant_that_other_policies_permitted_is_not_issued() {
    let (mut w, orch, node) = World::shop();
    let mut decided = w.prepare_grants(&orch, vec![w.ask("web", &node, 1)]).unwrap().command;
    let Command::Grants { orders, .. } = &mut decided.command else { panic!("a request for grants") };
    let GrantOrder::Issue(fact) = &mut orders[0] else { panic!("it is granted") };
    fact.policy_version += 1;
    let done = w.apply(decided).result.unwrap();
    assert_eq!(done.orders()[0].as_ref().err().unwrap().code, Code::Changed);
    assert_eq!(w.state.grants().count(), 0);
}

#[test]
fn a_request_or_command_counts_once() {
    let (mut w, orch, node) = World::shop();
    let r = v1::RequestGrantsRequest { request_id: vec![1; 16], requests: vec![w.ask("web", &node, 1)] };
    let ask = |w: &World| w.decide(&orch, &r, true);
    let (first, second) = (ask(&w), ask(&w));
    w.commit(first).unwrap();
    assert_eq!(w.commit(second).err().unwrap().code, Code::Changed, "in flight at the same time");
    let third = ask(&w);
    assert_eq!(w.commit(third).err().unwrap().code, Code::Changed);
    // C29: another body, or another caller, under the id that was used.
    let other = v1::RequestGrantsRequest { requests: vec![w.ask("web", &node, 2)], ..r.clone() };
    assert_eq!(w.decide(&orch, &other, true).err().unwrap().code, Code::InvalidInput);
    let (prepared, id) = (w.prepare_grants(&orch, vec![w.ask("web", &node, 2)]).unwrap().command.command, [1; 16]);
    let Command::Grants { orch: by, body, orders, .. } = prepared else { panic!("a request for grants") };
    let late = Command::Grants { orch: by, request: id, body, orders };
    assert_eq!(
        w.propose(late).result.err().unwrap().code,
        Code::InvalidInput,
        "decided before the first was carried out"
    );
    let stranger = w.orchestrator();
    assert_eq!(w.decide(&stranger, &r, true).err().unwrap().code, Code::InvalidInput);
    w.pass(600_000);
    w.propose(Command::Tick).result.unwrap();
    w.keep_lease(&orch).unwrap();
    let later = ask(&w);
    w.commit(later).unwrap();

    let lock = w.command(Action::Lockdown(v1::Lockdown::default()));
    let st = w.sign(&lock, &["oz"]);
    w.submit(&st, &[]).unwrap();
    w.repeat(&lock, &["oz"]);
}
