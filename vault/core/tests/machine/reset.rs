//! A new era: by the charter's Admins alone, on one new voter, and nothing that was removed is back.

use crate::world::{SoftKey, World, named_key};
use holdfast_types::{Digest, GrantId, Millis, Role, Secret, VoterId, sha256};
use holdfast_vault_core::prepare::{self, AtRest, FoundingKeys, PlannedReset, Resetting};
use holdfast_vault_core::{
    CaKey, Code, Entropy, EraKeys, Keyring, Prepared, Refusal, ResetFacts, SealedKey, StkFacts, VoterFacts, VoterState,
    command_voter,
};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::{statement, v1};
use v1::command::Action;

/// One of its kind, for the golden file of commands.
pub fn facts() -> ResetFacts {
    let sealed = || SealedKey { name: "root/era-2".into(), record: vec![1, 2, 3] };
    let key = || CaKey::Sealed(sealed());
    ResetFacts {
        statement: vec![4],
        signers: vec!["ada".into()],
        keys: EraKeys {
            root_der: vec![5],
            root_not_after: Millis(6),
            root_key: key(),
            issuer_der: vec![7],
            issuer_key: key(),
            issuer_not_after: Millis(8),
            stk: StkFacts { public: [9; 32], key: sealed(), from: Millis(10), until: Millis(11) },
            bundle: vec![12],
        },
        voter: VoterFacts { id: VoterId(4), kem_pk: [13; 32], kem_gen: 1 },
        spki: sha256(&[b"spki"]),
        term: 2,
        terms: vec![(1, vec![14]), (2, vec![15])],
        recovery_box: vec![16],
        unlock_pk: Some([17; 32]),
    }
}

fn keyring(w: &World) -> Keyring {
    let terms = vec![(1, Secret::take(&mut [7; 32])), (2, Secret::take(&mut [21; 32]))];
    Keyring::open_all(w.cluster, Secret::take(&mut [8; 32]), terms, 2)
}

fn plan(w: &World, unlock_pk: Option<[u8; 32]>) -> PlannedReset {
    plan_without(w, unlock_pk, Vec::new()).unwrap()
}

fn plan_without(w: &World, unlock_pk: Option<[u8; 32]>, removed: Vec<String>) -> Result<PlannedReset, Refusal> {
    planned(w, unlock_pk, removed, false)
}

fn planned(
    w: &World,
    unlock_pk: Option<[u8; 32]>,
    removed: Vec<String>,
    compromised: bool,
) -> Result<PlannedReset, Refusal> {
    let (root, issuer, keys) = (SoftKey::new(), SoftKey::new(), keyring(w));
    let (root_pkcs8, issuer_pkcs8) = (root.private(), issuer.private());
    let stk = named_key("stk of the next era");
    let made = FoundingKeys {
        root: &root,
        root_key: AtRest::Sealed(&root_pkcs8),
        issuer: &issuer,
        issuer_key: AtRest::Sealed(&issuer_pkcs8),
        stk: &stk,
    };
    let resetting = Resetting {
        state: &w.state,
        keys: &keys,
        made: &made,
        voter: command_voter(w.state.next_voter(), derive_keypair(&[31; 32]).1),
        spki: sha256(&[b"its tls key"]),
        unlock_pk,
        checkpoint: prepare::checkpoint(&w.state, &w.stk).unwrap(),
        reason: "the others burnt".into(),
        removed,
        compromised,
    };
    prepare::plan_reset(resetting, w.lives.issuer, w.state.time(w.now), &mut w.entropy())
}

fn complete(w: &World, p: PlannedReset, who: &[&str]) -> Result<Prepared<()>, Refusal> {
    let st = w.sign(p.document(), who);
    p.complete(&st, w.state.time(w.now), &mut Entropy::new([44; 32]))
}

pub fn reset(w: &mut World) {
    let p = plan(w, Some([5; 32]));
    let p = complete(w, p, &["ada", "ben"]);
    w.commit(p).unwrap();
}

/// The same, where the keys of the era before are in other hands.
pub fn reset_from_a_thief(w: &mut World) {
    let p = planned(w, Some([5; 32]), Vec::new(), true).unwrap();
    let p = complete(w, p, &["ada", "ben"]);
    w.commit(p).unwrap();
}

#[test]
fn a_reset_begins_an_era_with_one_new_voter_new_roots_and_epoch_one() {
    let (mut w, ..) = World::shop();
    let (roots, size) = (w.state.roots_der(), w.state.log_head().0);
    reset(&mut w);
    assert_eq!((w.state.era(), w.state.epoch()), (2, 1));
    let voters: Vec<_> = w.state.all_voters().map(|(id, v)| (id, v.state)).collect();
    assert_eq!(voters, [(VoterId(1), VoterState::Evicted), (VoterId(2), VoterState::Member)]);
    assert_eq!(w.state.next_voter(), VoterId(3));
    assert!(w.state.roots_der().iter().all(|r| !roots.contains(r)));
    let bundle: v1::Bundle = statement::peek(w.state.bundle_chain().last().unwrap()).unwrap();
    assert_eq!((bundle.era, bundle.epoch, bundle.roots), (2, 1, w.state.roots_der()));
    assert_eq!((w.state.active_term(), w.state.autolock()), (2, true));
    let entry = w.entry(size);
    assert_eq!((entry.kind.as_str(), entry.actor.as_str()), ("reset", "op/ada,op/ben"));
    let doc: v1::Reset = statement::peek(&entry.statement.unwrap()).unwrap();
    assert_eq!((doc.era, doc.voters), (2, vec![2]));
    assert_eq!(w.state.resets().len(), 1);
}

#[test]
fn the_next_era_uses_no_epoch_of_an_unlock_key_that_was_about_to_take_over() {
    let (mut w, ..) = World::shop();
    let next = v1::UnlockPrepare { epoch: w.state.next_unlock_epoch(), pk: vec![9; 32], ..Default::default() };
    let abandoned = next.epoch;
    w.act(&["ada", "ben"], Action::UnlockPrepare(next)).unwrap();
    let expected = w.state.next_unlock_epoch();
    reset(&mut w);
    assert_eq!((expected, w.state.unlock_view().epoch), (abandoned + 1, abandoned + 1));
}

#[test]
fn a_reset_needs_as_many_admins_as_a_charter_and_exactly_what_was_shown() {
    let (w, ..) = World::shop();
    for who in [&["ada"][..], &["cleo", "dora"], &["ada", "cleo"]] {
        assert_eq!(complete(&w, plan(&w, None), who).err().unwrap().code, Code::Threshold, "{who:?}");
    }
    let p = plan(&w, None);
    let other = w.sign(&v1::Reset { reason: "another".into(), ..p.document().clone() }, &["ada", "ben"]);
    let refused = p.complete(&other, w.now, &mut Entropy::new([1; 32])).err().unwrap();
    assert_eq!(refused.code, Code::BadCredential);
}

#[test]
fn a_reset_counts_once_and_only_for_the_next_era() {
    let (mut w, ..) = World::shop();
    let (first, second) = (plan(&w, None), plan(&w, None));
    let (first, second) = (complete(&w, first, &["ada", "ben"]), complete(&w, second, &["ada", "ben"]));
    w.commit(first).unwrap();
    assert_eq!(w.commit(second).err().unwrap().code, Code::Changed);
}

#[test]
fn what_was_removed_stays_removed_in_the_next_era() {
    let (mut w, _, node) = World::shop();
    let serial = w.state.node_view(&node.id, false).unwrap().serial;
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
    reset(&mut w);
    assert_eq!(w.state_of(&node.id), "removed");
    assert!(!w.show(Role::Node, &node.id, &serial, &node.spki));
    let listed: v1::Revocations = statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    assert!(listed.era == 2 && listed.revoked.iter().any(|r| r.id == node.id));
}

#[test]
fn leases_tokens_and_grants_of_the_era_before_have_no_force() {
    let (mut w, orch, node) = World::shop();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    w.mint("node");
    let fence = w.fence().1;
    reset(&mut w);
    assert!(w.state.leases_of(&orch.id, w.state.time(w.now)).is_empty());
    assert!(w.state.lease_views().iter().any(|l| l.fence == fence), "fences only go up");
    assert!(w.state.token_views().is_empty());
    assert!(w.state.grants().all(|(_, g)| !g.state.is_live()));
    w.pass(60_000);
    assert!(w.state.extensions(w.now, 10, |_| true).is_none());
}

#[test]
fn secrets_open_under_the_terms_that_the_recovery_key_held() {
    let (mut w, ..) = World::shop();
    w.put_secret("db", 2, b"a value", &["shop/web"]).unwrap();
    reset(&mut w);
    assert_eq!(w.state.recovery_terms().map(|(t, _)| t).collect::<Vec<_>>(), [1, 2]);
    let row = w.state.voter(VoterId(2)).unwrap();
    assert_eq!(row.terms.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1, 2]);
    let (sk, _) = derive_keypair(&[31; 32]);
    for (term, sealed) in &row.terms {
        assert!(Keyring::open_term(&w.cluster, &sk, *term, 2, 1, sealed).is_ok());
    }
}

#[test]
fn a_machine_of_the_era_before_gets_in_by_its_key_to_renew_and_only_while_it_works() {
    let (mut w, _, node) = World::shop();
    let view = w.state.node_view(&node.id, false).unwrap();
    let end = Millis(view.not_after_ms);
    let known = |w: &World, role: Role, spki: &Digest, now: Millis| {
        prepare::kept_from_before(&w.state, role, &node.id, &view.serial, spki, now)
    };
    assert!(!known(&w, Role::Node, &node.spki, w.now), "in the first era a chain is asked for");
    reset(&mut w);
    assert!(known(&w, Role::Node, &node.spki, w.now));
    assert!(!known(&w, Role::Node, &sha256(&[b"another key"]), w.now));
    assert!(!known(&w, Role::Orch, &node.spki, w.now));
    assert!(!known(&w, Role::Node, &node.spki, end), "no longer than its certificate");

    let (mut w, _, node) = World::shop();
    let serial = w.state.node_view(&node.id, false).unwrap().serial;
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
    reset(&mut w);
    assert!(!prepare::kept_from_before(&w.state, Role::Node, &node.id, &serial, &node.spki, w.now), "it was removed");
}

#[test]
fn a_task_of_the_era_before_is_left_to_its_lease_and_no_longer_than_any_may_last() {
    let (mut w, orch, node) = World::shop();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let (id, after_the_backup) = (*w.state.grants().next().unwrap().0, GrantId([9; 16]));
    let taken_back = {
        let (mut w, orch, node) = World::shop();
        w.grant(&orch, w.ask("web", &node, 1)).unwrap();
        let id = *w.state.grants().next().unwrap().0;
        w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
        w.pass(1000);
        reset(&mut w);
        w.state.is_left_from_before(&id, w.now)
    };
    assert!(!taken_back, "what was taken back before stays taken back");
    w.pass(1000);
    assert!(!w.state.is_left_from_before(&after_the_backup, w.now), "there was no era before");
    reset(&mut w);
    assert!(w.state.is_left_from_before(&id, w.now) && w.state.is_left_from_before(&after_the_backup, w.now));
    w.pass(96 * 3_600_000);
    assert!(!w.state.is_left_from_before(&id, w.now) && !w.state.is_left_from_before(&after_the_backup, w.now));
}

#[test]
fn who_was_removed_after_the_backup_is_named_in_the_reset_and_does_not_come_back() {
    let (mut w, orch, node) = World::shop();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let serial = w.state.node_view(&node.id, false).unwrap().serial;
    assert_eq!(plan_without(&w, None, vec!["n-unknown".into()]).err().unwrap().code, Code::NotFound);
    let p = plan_without(&w, None, vec![orch.id.clone(), node.id.clone(), node.id.clone()]).unwrap();
    let mut named = vec![orch.id.clone(), node.id.clone()];
    named.sort_unstable();
    assert_eq!(p.document().removed, named);
    let p = complete(&w, p, &["ada", "ben"]);
    w.commit(p).unwrap();
    assert_eq!((w.state_of(&node.id), w.state_of(&orch.id)), ("removed".to_owned(), "removed".to_owned()));
    assert!(!w.show(Role::Node, &node.id, &serial, &node.spki));
    assert!(!prepare::kept_from_before(&w.state, Role::Node, &node.id, &serial, &node.spki, w.now));
    let listed: v1::Revocations = statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    assert!(named.iter().all(|id| listed.revoked.iter().any(|r| r.id == *id)));
}
