//! Images that operators deny: started nowhere, and told where they run.

use crate::world::{Machine, World, image};
use holdfast_types::GrantId;
use holdfast_vault_core::{Code, Committed, Event, GrantState, Refusal, prepare};
use holdfast_wire::{statement, v1};
use v1::command::Action;

const QUARTER: i64 = 86_400_000 / 4;

fn deny(name: &str) -> Action {
    Action::DenyDigest(v1::DenyDigest { digest: image(name).to_vec(), reason: "a hole".into() })
}
fn allow(name: &str) -> Action {
    Action::AllowDigest(v1::AllowDigest { digest: image(name).to_vec() })
}

/// What a later tick of the leader does about leases; true if `id` is extended.
fn extended(w: &mut World, id: &GrantId) -> bool {
    w.pass(QUARTER);
    let Some(extend) = w.state.extensions(w.now, 100, |_| true) else { return false };
    w.propose(extend).events.contains(&Event::GrantExtended(*id))
}

fn run(w: &mut World, orch: &Machine, node: &Machine) -> GrantId {
    let ask = w.ask("web", node, 1);
    let (st, ..) = w.grant(orch, ask).unwrap();
    let id = statement::peek::<v1::Grant>(&st).unwrap().grant_id;
    w.report(node, &id, "running").unwrap();
    GrantId::from_slice(&id).unwrap()
}

#[test]
fn a_denied_image_is_granted_no_more_and_what_runs_of_it_is_told_and_extended() {
    let (mut w, orch, node) = World::shop();
    let id = run(&mut w, &orch, &node);
    assert!(w.state.denied_running().is_empty());
    let (epoch, from) = (w.state.epoch(), w.leaves.len());
    w.act(&["oz"], deny("web")).unwrap();
    assert_eq!(w.kinds_since(from), ["image.deny", "alarm/denied-digest"]);
    let flag = w.entry(from as u64 + 1);
    let tasks = flag.fields.iter().find(|f| f.name == "tasks").map(|f| f.value.as_str());
    assert_eq!((flag.subject.as_str(), tasks), ("shop/web", Some("1")));
    let told: Vec<_> = w.state.denied_running().into_iter().map(|(s, n)| (s.to_string(), n)).collect();
    assert_eq!(told, [("shop/web".to_owned(), 1)]);

    // Nodes hear of it.
    assert!(w.state.epoch() > epoch);
    let list = prepare::revocations(&w.state, &w.stk).unwrap();
    assert_eq!(statement::peek::<v1::Revocations>(&list).unwrap().denied_digests, [image("web").to_vec()]);

    let refused = w.grant(&orch, w.ask("web", &node, 2)).err().unwrap();
    assert_eq!((refused.code, refused.policies), (Code::PolicyDenied, vec!["L0-denied".to_owned()]));
    let next = w.spec("web", 2, &["db"]);
    assert_eq!(w.deploy(&next).err().unwrap().policies, ["L0-denied"]);
    // One operator denied it, and ends nothing by that: not at once, and not with the lease.
    assert!(extended(&mut w, &id));
    assert_eq!(w.state.grant(&id).unwrap().state, GrantState::Running, "it is not stopped");
    assert_eq!(w.state.denied_running().len(), 1, "it is told for as long as it runs");

    w.act(&["ada", "ben"], allow("web")).unwrap();
    assert!(w.state.denied_running().is_empty());
    assert!(extended(&mut w, &id));
    w.keep_lease(&orch).unwrap();
    w.grant(&orch, w.ask("web", &node, 2)).unwrap();
}

#[test]
fn one_operator_denies_an_image_and_as_many_as_end_a_lockdown_allow_it_again() {
    let (mut w, ..) = World::shop();
    let code = |r: Result<Committed, Refusal>| r.err().unwrap().code;
    assert_eq!(code(w.act(&["ada", "ben"], allow("web"))), Code::NotFound);
    w.act(&["pat"], deny("web")).unwrap();
    w.act(&["cleo"], deny("other")).unwrap();
    assert_eq!(code(w.act(&["oz"], deny("web"))), Code::Changed);
    assert_eq!(code(w.act(&["ada"], allow("web"))), Code::Threshold);
    assert_eq!(code(w.act(&["oz", "pat"], allow("web"))), Code::PolicyDenied);
    let short = v1::DenyDigest { digest: vec![1; 31], reason: String::new() };
    assert_eq!(code(w.act(&["oz"], Action::DenyDigest(short))), Code::InvalidInput);
    w.act(&["ada", "ben"], allow("web")).unwrap();
    let list = prepare::revocations(&w.state, &w.stk).unwrap();
    assert_eq!(statement::peek::<v1::Revocations>(&list).unwrap().denied_digests, [image("other").to_vec()]);
}

#[test]
fn a_grant_that_was_decided_before_its_image_was_denied_is_not_issued() {
    let (mut w, orch, node) = World::shop();
    let early = w.prepare_grants(&orch, vec![w.ask("web", &node, 1)]);
    w.act(&["oz"], deny("web")).unwrap();
    let (_, done) = w.commit(early).unwrap();
    assert_eq!(done.orders()[0].as_ref().err().unwrap().policies, ["L0-denied"]);
    assert_eq!(w.state.grants().count(), 0);
}
