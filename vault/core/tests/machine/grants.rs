//! Grants: what the policy refuses and by which name, and what an issued one carries.

use crate::world::World;
use holdfast_types::{Secret, TaskId, sha256};
use holdfast_vault_core::prepare::GrantReply;
use holdfast_vault_core::{Code, Command, grant_fields};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::{padding, statement, v1};
use v1::command::Action;

fn drain(id: &str, drain: bool) -> Action {
    Action::SetDrain(v1::SetDrain { id: id.into(), drain })
}

#[test]
fn the_grant_verifies_and_its_box_opens_for_its_node_alone() {
    let (mut w, orch, node) = World::shop();
    let (st, sealed, _) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let g = statement::verify::<v1::Grant>(&st, &[w.stk.public()], 1).unwrap().doc;
    assert_eq!((g.node_id.as_str(), g.task_gen, g.fence, g.era), (node.id.as_str(), 1, 1, 1));
    assert_eq!(g.secrets[0].box_sha256, sha256(&[&sealed[0]]).to_vec());
    assert_eq!(g.images[0].publisher, "ci");
    let aad = boxes::secret_aad(&g.grant_id, "shop/db", 1, &node.id, 1);
    let (other, cluster) = (w.node(), w.cluster);
    let c = Context { purpose: "secret", cluster: &cluster, aad: &aad };
    let psk = Secret::from_slice(&node.psk).unwrap();
    let value = boxes::open(&node.hpke, &c, Some(&psk), &sealed[0]).unwrap();
    assert_eq!(value.expose(), padding::pad(b"first value"));
    assert!(boxes::open(&other.hpke, &c, Some(&psk), &sealed[0]).is_err());
    assert!(boxes::open(&node.hpke, &c, Some(&Secret::from_slice(&other.psk).unwrap()), &sealed[0]).is_err());
}

#[test]
fn nothing_leaves_before_its_leaf_is_committed() {
    // By type: a reply lies in a `Held`, whose content only `release` gives, which takes a `Committed`, which only
    // `apply` makes. At run time: the leaf that the witness names is there by then and holds the grant's hash.
    let (mut w, orch, node) = World::shop();
    let p = w.prepare_grants(&orch, vec![w.ask("web", &node, 1), w.ask("web", &node, 2)]).unwrap();
    let size = w.state.log_head().0;
    let done = w.apply(p.command).result.unwrap();
    let (replies, done) = p.held.release(done).unwrap();
    for (reply, leaf) in replies.iter().zip(done.orders()) {
        let (GrantReply::Issued { grant, id, .. }, Ok(leaf)) = (reply, leaf) else { panic!("both are granted") };
        let entry = w.entry(*leaf);
        let (name, value) = grant_fields(&sha256(&[&grant.payload]));
        assert!(size <= *leaf && *leaf <= done.leaf());
        assert_eq!((entry.kind.as_str(), entry.subject), ("grant.issued", id.hex()));
        assert!(entry.fields.contains(&v1::Field { name: name.into(), value }));
        assert_eq!(w.state.grant(id).unwrap().leaf, *leaf);
    }
}

#[test]
fn what_is_held_comes_out_for_its_own_commit_alone() {
    let (mut w, orch, node) = World::shop();
    let first = w.prepare_grants(&orch, vec![w.ask("web", &node, 1)]).unwrap();
    let second = w.prepare_grants(&orch, vec![w.ask("web", &node, 2)]).unwrap();
    let of_second = w.apply(second.command).result.unwrap();
    assert!(first.held.release(of_second).is_none(), "another command's commit opens nothing");
    let of_first = w.apply(first.command).result.unwrap();
    assert!(second.held.release(of_first).is_none());
}

#[test]
fn a_task_granted_twice_has_two_incarnations_in_one_batch_and_across() {
    let (mut w, orch, node) = World::shop();
    let twice = vec![w.ask("web", &node, 1), w.ask("web", &node, 1)];
    let (replies, _) = w.grants(&orch, twice).unwrap();
    let third = w.grant(&orch, w.ask("web", &node, 1)).unwrap().0;
    let issued = replies.iter().map(|r| match r {
        GrantReply::Issued { grant, .. } => grant.clone(),
        GrantReply::Denied(r) => panic!("{r}"),
    });
    let gens: Vec<u64> = issued.chain([third]).map(|g| statement::peek::<v1::Grant>(&g).unwrap().task_gen).collect();
    assert_eq!(gens, [1, 2, 3]);
}

#[test]
fn a_node_outside_the_specs_zones_is_refused() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { zones: vec!["us".into()], ..w.spec("web", 2, &["db"]) };
    w.deploy(&spec).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-zone"]);
}

#[test]
fn a_node_without_the_specs_labels_is_refused() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { node_labels: vec!["disk=ssd".into()], ..w.spec("web", 2, &["db"]) };
    w.deploy(&spec).unwrap();
    let r = w.grant(&orch, w.ask("web", &node, 1)).err().unwrap();
    assert_eq!((r.code, r.policies), (Code::PolicyDenied, vec!["L0-node-label".to_owned()]));
    let place = v1::SetPlace { id: node.id.clone(), zone: "eu".into(), labels: vec!["disk=ssd".into()] };
    w.act(&["ada"], Action::SetPlace(place)).unwrap();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
}

#[test]
fn a_secret_that_no_longer_lists_the_service_is_refused_by_name() {
    let (mut w, orch, node) = World::shop();
    w.put_secret("db", 2, b"second", &["shop/other"]).unwrap();
    let r = w.grant(&orch, w.ask("web", &node, 1)).err().unwrap();
    assert_eq!((r.code, r.policies), (Code::PolicyDenied, vec!["L1-mount".to_owned()]));
}

#[test]
fn a_spec_that_mounts_a_secret_which_its_service_may_not_read_is_refused_by_name() {
    let (mut w, ..) = World::shop();
    w.put_secret("db", 2, b"second", &["shop/other"]).unwrap();
    let spec = w.spec("web", 2, &["db"]);
    let r = w.deploy(&spec).err().unwrap();
    assert_eq!((r.code, r.policies), (Code::PolicyDenied, vec!["L1-mount".to_owned()]));
}

#[test]
fn a_grant_says_every_policy_that_permitted_it_or_one_of_its_secrets() {
    let (mut w, orch, node) = World::shop();
    let from = w.leaves.len();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let leaf = (from..w.leaves.len()).map(|i| w.entry(i as u64)).find(|e| e.kind == "grant.issued").unwrap();
    let field = |name: &str| leaf.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str());
    assert_eq!((field("policies"), field("policy_version")), (Some("L1-grant,L1-mount"), Some("0")));
}

#[test]
fn lockdown_stops_grants_until_the_release() {
    let (mut w, orch, node) = World::shop();
    w.act(&["oz"], Action::Lockdown(v1::Lockdown { reason: "fire".into() })).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lockdown-grant"]);
    w.act(&["ada", "ben"], Action::Release(v1::Release { reason: "out".into() })).unwrap();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
}

#[test]
fn a_node_that_drains_or_was_not_heard_of_gets_nothing_new() {
    let (mut w, orch, node) = World::shop();
    let r = v1::RequestGrantsRequest { request_id: vec![1; 16], requests: vec![w.ask("web", &node, 1)] };
    let p = w.decide(&orch, &r, false);
    let (replies, done) = w.commit(p).unwrap();
    assert!(
        matches!(&replies[0], GrantReply::Denied(r) if r.policies == ["L0-node-ready"]) && done.orders()[0].is_err()
    );
    w.act(&["ada"], drain(&node.id, true)).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-node-ready"]);
    w.act(&["ada"], drain(&node.id, false)).unwrap();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
}

#[test]
fn a_retired_version_of_a_spec_is_not_granted() {
    let (mut w, orch, node) = World::shop();
    for version in [2, 3] {
        let spec = w.spec("web", version, &["db"]);
        w.deploy(&spec).unwrap();
    }
    let at = |version| v1::GrantRequest { version, ..w.ask("web", &node, 1) };
    let (old, active) = (at(1), at(2));
    assert_eq!(w.grant(&orch, old).err().unwrap().policies, ["L0-spec-active"]);
    w.grant(&orch, active).unwrap();
}

#[test]
fn a_spec_past_its_validity_is_not_granted() {
    let (mut w, orch, node) = World::shop();
    w.pass(24 * 3_600_000);
    w.keep_lease(&orch).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-spec-active"]);
}

#[test]
fn each_budget_of_the_mandate_bites() {
    let (mut w, orch, node) = World::shop();
    let slots: Vec<_> = (1..=5).map(|s| w.ask("web", &node, s)).collect();
    let (_, done) = w.grants(&orch, slots).unwrap();
    let ok: Vec<bool> = done.orders().iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, true, true, true, false], "three replicas and one while it changes");

    for (id, per_minute, novelty) in [("rate", 1, 30), ("novel", 100, 1)] {
        let (mut w, orch, node) = World::shop();
        w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
        let m = v1::Mandate { grants_per_minute: per_minute, novelty_per_hour: novelty, ..w.mandate(id, &[&orch.id]) };
        w.put_mandate(&m).unwrap();
        let other = w.node();
        w.grant(&orch, w.ask("web", &node, 1)).unwrap();
        let r = w.grant(&orch, w.ask("web", &other, 2)).err().unwrap();
        assert_eq!((r.code, r.policies), (Code::BudgetExhausted, vec!["L0-budget".to_owned()]), "{id}");
        // Windows slide by a twelfth of their length.
        w.pass(if id == "rate" { 65_000 } else { 65 * 60_000 });
        w.keep_lease(&orch).unwrap();
        w.grant(&orch, w.ask("web", &other, 2)).unwrap();
    }
}

#[test]
fn a_mandate_that_is_absent_expired_or_revoked_grants_nothing() {
    let (mut w, orch, node) = World::shop();
    let unnamed = w.orchestrator();
    assert_eq!(w.grant(&unnamed, w.ask("web", &node, 1)).err().unwrap().code, Code::PolicyDenied);
    w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
    let (mut w, orch, node) = World::shop();
    w.pass(30 * 24 * 3_600_000);
    w.keep_lease(&orch).unwrap();
    assert!(w.state.leases_of(&orch.id, w.now).is_empty());
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
}

#[test]
fn an_exclusive_task_is_not_granted_again_before_its_last_grant_is_over() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { exclusive: true, on_expiry: "stop".into(), ..w.spec("web", 2, &[]) };
    w.deploy(&spec).unwrap();
    let (st, ..) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let g: v1::Grant = statement::peek(&st).unwrap();
    assert_eq!((g.lease_until_ms - g.issued_at_ms, g.grace_s), (120_000, 0));
    let other = w.node();
    assert_eq!(w.grant(&orch, w.ask("web", &other, 1)).err().unwrap().code, Code::Changed);
    w.act(&["oz"], Action::RevokeGrant(v1::RevokeGrant { grant_id: g.grant_id.clone() })).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &other, 1)).err().unwrap().code, Code::Changed, "revoked is not over");
    w.report(&node, &g.grant_id, "stopped").unwrap();
    w.grant(&orch, w.ask("web", &other, 1)).unwrap();
}

/// The grant was forgotten after ten minutes, and with it that the job was done: the next orchestrator ran it again.
#[test]
fn a_task_that_has_done_its_work_is_not_granted_again() {
    let (mut w, orch, node) = World::shop();
    let name = holdfast_types::ServiceRef::of("shop", "web").unwrap();
    let job = |w: &World, version, replicas| v1::Spec {
        restart: "never".into(),
        replicas_max: replicas,
        ..w.spec("web", version, &[])
    };
    let ends = |w: &mut World, slot: u32| {
        w.keep_lease(&orch).unwrap();
        let (st, ..) = w.grant(&orch, w.ask("web", &node, slot)).unwrap();
        let id = statement::peek::<v1::Grant>(&st).unwrap().grant_id;
        w.report(&node, &id, "running").unwrap();
        w.report(&node, &id, "done").unwrap();
    };
    // A node that says so of a service that is always started again is not heard.
    ends(&mut w, 1);
    assert!(w.state.service_view(&name).unwrap().done.is_empty());

    let first = job(&w, 2, 1);
    w.deploy(&first).unwrap();
    ends(&mut w, 1);
    assert_eq!(w.state.service_view(&name).unwrap().done, [1]);
    w.pass(700_000);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(w.state.grants().count(), 0, "all of them are forgotten");
    w.keep_lease(&orch).unwrap();
    let refusal = w.grant(&orch, w.ask("web", &node, 1)).err().unwrap();
    assert!(refusal.code == Code::Changed && refusal.reason.contains("done its work"), "{refusal:?}");

    let scaled = job(&w, 3, 2);
    w.deploy(&scaled).unwrap();
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().code, Code::Changed);
    ends(&mut w, 2);
    assert_eq!(w.state.service_view(&name).unwrap().done, [1, 2]);

    let other = v1::Spec { command: vec!["/bin/other".into()], ..job(&w, 4, 2) };
    w.deploy(&other).unwrap();
    ends(&mut w, 1);
}

#[test]
fn params_are_those_that_the_spec_declares_within_their_bounds() {
    let (mut w, orch, node) = World::shop();
    let port = v1::ParamDecl { name: "port".into(), kind: "int".into(), min: 1, max: 9, max_len: 0 };
    let spec = v1::Spec { params: vec![port], ..w.spec("web", 2, &[]) };
    w.deploy(&spec).unwrap();
    let with = |name: &str, value: &str| {
        let params = vec![v1::Param { name: name.into(), value: value.into() }];
        v1::GrantRequest { params, ..w.ask("web", &node, 1) }
    };
    let (good, bad) = (
        with("port", "9"),
        [with("port", "10"), with("port", "09"), with("port", "$(id)"), with("x", "1"), w.ask("web", &node, 1)],
    );
    for r in bad {
        assert_eq!(w.grant(&orch, r).err().unwrap().code, Code::InvalidInput);
    }
    w.grant(&orch, good).unwrap();
}

#[test]
fn a_task_of_another_service_or_a_recipient_that_is_no_node_is_refused() {
    let (mut w, orch, node) = World::shop();
    let foreign = v1::GrantRequest { task_id: "shop.other.1".into(), ..w.ask("web", &node, 1) };
    assert_eq!(w.grant(&orch, foreign).err().unwrap().code, Code::InvalidInput);
    assert_eq!(w.grant(&orch, w.ask("web", &orch, 1)).err().unwrap().code, Code::NotFound);
    assert!(TaskId::parse("shop.web.1").is_ok());
}
