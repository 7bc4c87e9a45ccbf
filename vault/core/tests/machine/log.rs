//! Leaves: each change has one, of a kind that is listed, salted, and under the root that the state names.

use holdfast_vault_core::Leaf;
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::v1;
use std::collections::BTreeSet;
use v1::command::Action;

/// Every kind of entry that this machine writes. The protocol's list, with `operator.login`, `service.*`,
/// `image.*`, `token.revoke`, `orch.create`, `voter.join`, `node.drain`, `identity.fork` and those that begin with `alarm/`.
pub const KINDS: &[&str] = &[
    "init",
    "root.add",
    "root.switch",
    "root.drop",
    "root.destroyed",
    "root.ask",
    "issuer.create",
    "stk.rotate",
    "keyring.add",
    "keyring.rewrap",
    "keyring.destroy",
    "unlock.prepare",
    "unlock.finalize",
    "autolock.off",
    "diskkey.rotate",
    "charter",
    "cert.issue",
    "voter.up",
    "voter.join",
    "voter.admit",
    "voter.evict",
    "voter.rolledback",
    "unlock.slotready",
    "service.deploy",
    "service.remove",
    "image.vouch",
    "image.deny",
    "image.allow",
    "mandate",
    "command",
    "node.quarantine",
    "secret.put",
    "secret.delete",
    "token.mint",
    "token.revoke",
    "token.use",
    "token.deny",
    "node.create",
    "orch.create",
    "node.approve",
    "node.remove",
    "node.drain",
    "node.zone",
    "node.renew",
    "node.activate",
    "identity.fork",
    "operator.login",
    "lockdown",
    "release",
    "lease.change",
    "grant.issued",
    "grant.denied",
    "budget.hit",
    "alarm/first-placement",
    "alarm/denied-digest",
    "alarm/stop-rate",
    "grant.started",
    "grant.ended",
    "grant.revoked",
    "grant.extended",
    "grant.late",
    "command.deny",
    "alarm/unknown-cert",
    "alarm/impostor",
    "evidence",
    "unlock.open",
    "unlock.deny",
    "seal",
];

/// Checks a whole log against the head that the state names.
pub fn check(leaves: &[Leaf], kinds: &[String], head: (u64, holdfast_types::Digest)) {
    let mut f = Frontier::from_parts(0, Vec::new()).unwrap();
    for l in leaves {
        assert_eq!(l.nodes, f.push(leaf_hash(&l.salt, &l.entry)));
    }
    assert_eq!((f.size(), f.root()), head);
    let salts: BTreeSet<_> = leaves.iter().map(|l| l.salt).collect();
    assert_eq!(salts.len(), leaves.len(), "no salt is used twice");
    for k in kinds {
        assert!(KINDS.contains(&k.as_str()), "{k} is not a listed kind");
    }
}

#[test]
fn the_frontier_is_what_the_leaves_give() {
    let (mut w, orch, node) = crate::world::World::shop();
    let slots = (1..=5).map(|s| w.ask("web", &node, s)).collect();
    w.grants(&orch, slots).unwrap();
    check(&w.leaves, &w.kinds_since(0), w.state.log_head());
}

#[test]
fn an_operators_entry_carries_what_the_operator_signed() {
    let (w, ..) = crate::world::World::shop();
    let by_operator = (0..w.leaves.len()).map(|i| w.entry(i as u64)).filter(|e| e.actor.starts_with("op/"));
    assert!(by_operator.fold(0, |n, e| if e.statement.is_some() { n + 1 } else { panic!("{} has none", e.kind) }) > 5);
}

#[test]
fn each_act_of_an_operator_names_the_policies_that_permitted_it_and_their_version() {
    let (mut w, _, node) = crate::world::World::shop();
    w.act(&["oz", "ada"], Action::Lockdown(v1::Lockdown { reason: "drill".into() })).unwrap();
    w.act(&["ada"], Action::SetDrain(v1::SetDrain { id: node.id, drain: true })).unwrap();
    let field = |e: &v1::LogEntry, name: &str| e.fields.iter().find(|f| f.name == name).map(|f| f.value.clone());
    let mut seen = BTreeSet::new();
    for e in (0..w.leaves.len()).map(|i| w.entry(i as u64)).filter(|e| e.actor.starts_with("op/")) {
        let permitted = (field(&e, "policies"), field(&e, "policy_version"));
        if e.kind == "image.vouch" {
            assert_eq!(permitted, (None, None), "a publisher's word is no act");
            continue;
        }
        assert_eq!(permitted.1.as_deref(), Some("0"), "{}", e.kind);
        seen.insert((e.kind, permitted.0.unwrap()));
    }
    let expected = [
        ("lockdown", "L1-brake"),
        ("mandate", "L1-mandate"),
        ("node.approve", "L1-nodes"),
        ("node.drain", "L1-nodes"),
        ("secret.put", "L1-secrets"),
        ("service.deploy", "L1-deploy"),
        ("token.mint", "L1-admin"),
    ];
    let expected: BTreeSet<_> = expected.map(|(kind, policy)| (kind.to_owned(), policy.to_owned())).into();
    assert_eq!(seen, expected);
}
