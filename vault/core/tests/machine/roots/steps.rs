//! The steps of a rotation: what each is refused for, what follows from it, and what is served meanwhile.

use super::world::{ADMINS, HOUR, Roots, Standing, believes, rotate, v1_bundle};
use crate::world::{World, at_time};
use holdfast_pki::bundle::{Admins, sec1_of_cert, verify_bundle_chain};
use holdfast_pki::chain::{Usage, verify_by_anchor};
use holdfast_types::{Digest, Millis};
use holdfast_vault_core::{CaKey, Code, Command, RootKind, RootStep, State, prepare};
use holdfast_wire::v1;
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use v1::command::Action;

const DAY: i64 = 24 * HOUR;

fn code<T>(r: Result<T, holdfast_vault_core::Refusal>) -> Code {
    r.err().map(|e| e.code).unwrap()
}

#[test]
fn a_rotation_goes_from_one_root_to_the_next_by_three_entries() {
    let mut r = Roots::new();
    let mut all = [r.node(), r.node()];
    let (a, from) = (r.signer(), r.w.leaves.len());
    r.order("software").unwrap();
    let t = r.target().unwrap();
    assert_eq!((t.kind, t.by.as_str()), (RootKind::Software, "op/ada,op/ben"));
    let b = r.add().unwrap();
    assert_eq!((r.trusted(), r.signer(), r.w.state.root_phase()), (vec![a, b], a, "distributing"));
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Switch(b), "cross-certificates make it safe at once");
    r.switch(b).unwrap();
    assert_eq!((r.signer(), r.w.state.root_phase()), (b, "reissuing"));
    let view = r.w.state.roots_view(r.w.now, |_| true);
    assert_eq!((view.reissued, view.total, view.stragglers.len()), (0, 3, 3));
    assert!(!view.waits_for.is_empty() && view.stragglers[0].role == "vault");
    r.report();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Renew);
    assert_eq!(code(r.drop_root(a)), Code::Changed);
    r.settle(&mut all);
    assert_eq!(r.trusted(), [b]);
    assert!(all.iter().all(|s| r.cert_root(s) == Some(b)));
    let retired = &r.w.state.rotation().retired[0];
    assert_eq!((retired.sha256, &retired.key, retired.destroyed), (a, &CaKey::Offline, true));
    let kinds = r.w.kinds_since(from);
    let of = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!(["root.add", "root.switch", "root.drop", "root.destroyed"].map(of), [1; 4]);
}

#[test]
fn a_root_goes_only_when_nobody_alive_is_under_it() {
    let mut r = Roots::new();
    let (mut on, off) = (r.node(), r.node());
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    r.report();
    assert!(r.renew(&mut on) && r.show(&mut on));
    r.deliver(&mut on);
    r.ack(&on);
    assert_eq!(code(r.drop_root(a)), Code::Changed, "one is off, and its certificate is good still");
    assert!(r.w.state.to_renew(r.w.now, 10).contains(&off.m.id));
    // It stops being live by itself: a rotation ends within the life of a leaf.
    r.w.pass(73 * HOUR);
    assert!(!r.is_live(&off));
    r.report();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Drop(a));
    r.drop_root(a).unwrap();
    assert_eq!(r.trusted(), [b]);
}

#[test]
fn a_root_goes_only_when_all_who_live_trust_the_one_that_signs() {
    let mut r = Roots::new();
    let mut s = r.node();
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    r.report();
    // Its certificate is renewed, and it has not been sent the Bundle.
    assert!(r.renew(&mut s) && r.show(&mut s));
    assert!(code(r.drop_root(a)) == Code::Changed && r.w.state.unacked(r.w.now).any(|id| id == s.m.id));
    // It cannot believe what does not exist: a lie about the future counts as the present.
    r.w.propose(Command::Acked(vec![(s.m.id.clone(), u64::MAX)])).result.unwrap();
    assert_eq!(r.w.state.identity(&s.m.id).unwrap().acked, r.w.state.bundle_epoch());
    r.drop_root(a).unwrap();
}

#[test]
fn without_cross_certificates_a_root_signs_once_all_who_live_said_that_they_trust_it() {
    let mut r = Roots::new();
    let mut s = r.node();
    r.order("software").unwrap();
    let b = r.add_edited(|n| n.cross.clear()).unwrap();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Nothing);
    assert_eq!(code(r.switch(b)), Code::Changed);
    assert!(r.w.state.roots_view(r.w.now, |_| true).waits_for.contains(&s.m.id));
    r.deliver(&mut s);
    r.ack(&s);
    r.switch(b).unwrap();
    // It believes what is under the new root now, though nobody certified that.
    r.report();
    believes(&s.trust.doc.roots, &r.vault, &r.domain(), r.w.now, Usage::Server).unwrap();
}

#[test]
fn while_a_root_is_replaced_everybody_is_believed_by_who_trusts_the_old_one_or_the_new_one_alone() {
    let mut r = Roots::new();
    let mut s = r.node();
    let old_root = r.w.state.roots_der().remove(0);
    let (old_chain, domain) = (s.chain.clone(), r.domain());
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    r.report();
    assert!(r.renew(&mut s) && r.show(&mut s));
    let new_root = r.w.state.root(&b).unwrap().der.clone();
    for root in [&old_root, &new_root] {
        believes(std::slice::from_ref(root), &r.vault, &domain, r.w.now, Usage::Server).unwrap();
        believes(std::slice::from_ref(root), &s.chain, &domain, r.w.now, Usage::Client).unwrap();
    }
    believes(&r.w.state.roots_der(), &old_chain, &domain, r.w.now, Usage::Client).unwrap();
    // Who joins with a token that pins either root finds it; also once the old one was dropped.
    let mut all = [s];
    r.settle(&mut all);
    r.report();
    let vault: Vec<CertificateDer<'_>> = r.vault.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
    for root in [&old_root, &new_root] {
        verify_by_anchor(&vault, &r.w.cluster.anchor(root), r.w.now).unwrap();
    }
    assert!(believes(&[new_root], &old_chain, &domain, r.w.now, Usage::Client).is_err(), "nobody needs it any more");
}

/// All that leaves the vault of its roots: the Bundles, what operators see, and what the vault and `s` serve, made anew.
fn leaving(r: &mut Roots, s: &mut Standing) -> Vec<u8> {
    r.report();
    assert!(r.renew(s));
    let state = &r.w.state;
    let view = state.roots_view(r.w.now, |_| true).encode_to_vec();
    let bundles = state.bundle_chain().into_iter().map(|st| st.encode_to_vec());
    let chains = r.vault.iter().chain(s.next.iter().flatten()).cloned();
    bundles.chain(chains).chain([view]).flatten().collect()
}

#[test]
fn until_a_root_is_added_nothing_that_leaves_the_vault_contains_it_or_anything_that_it_signed() {
    let mut r = Roots::new();
    let mut s = r.node();
    let holds = |all: &[u8], part: &[u8]| all.windows(part.len()).any(|w| w == part);
    let key = |der: &[u8]| sec1_of_cert(der).unwrap();
    r.order("software").unwrap();
    // It is made, with its issuer, its cross-certificates and the Bundle that lists it; its entry is not committed.
    let mut made = None;
    let spoilt = r.add_edited(|n| {
        made = Some(n.clone());
        n.bundle.clear();
    });
    assert!(spoilt.is_err());
    let lost = made.unwrap();
    assert!(!lost.cross.is_empty());
    let of_lost = [key(&lost.der), key(&lost.issuer_der), lost.bundle.clone()];
    let all = leaving(&mut r, &mut s);
    assert!(!of_lost.iter().any(|part| holds(&all, part)));
    assert!(!lost.cross.iter().any(|(_, x)| holds(&all, &x.der)));
    // The next attempt is committed: the same look finds what it made, and nothing of the one before.
    let b = r.add().unwrap();
    let der = r.w.state.root(&b).unwrap().der.clone();
    let issuer = r.w.state.issuer_under(&b).unwrap().der.clone();
    let all = leaving(&mut r, &mut s);
    assert!(holds(&all, &key(&der)) && !holds(&all, &key(&issuer)), "it is trusted, and does not sign yet");
    r.switch(b).unwrap();
    let all = leaving(&mut r, &mut s);
    assert!(holds(&all, &key(&issuer)));
    assert!(!of_lost.iter().any(|part| holds(&all, part)));
}

#[test]
fn an_order_is_taken_back_in_each_phase() {
    // Before the root is made.
    let mut r = Roots::new();
    let a = r.signer();
    let mut all = [r.node()];
    assert_eq!(code(r.abort()), Code::Changed, "there is nothing to abort");
    r.order("software").unwrap();
    r.abort().unwrap();
    assert_eq!((code(r.add()), r.target()), (Code::Changed, None));
    // Once it is trusted.
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.abort().unwrap();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Drop(b));
    r.settle(&mut all);
    assert_eq!(r.trusted(), [a]);
    // Once it signs.
    r.order("software").unwrap();
    let c = r.add().unwrap();
    r.switch(c).unwrap();
    r.report();
    assert!(r.renew(&mut all[0]) && r.show(&mut all[0]));
    r.abort().unwrap();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Switch(a));
    assert_eq!(code(r.abort()), Code::Changed, "it is led back already");
    r.settle(&mut all);
    assert_eq!((r.trusted(), r.cert_root(&all[0])), (vec![a], Some(a)));
}

#[test]
fn a_second_rotation_may_begin_in_the_midst_of_the_first_and_a_fourth_root_is_too_many() {
    let mut r = Roots::new();
    let mut all = [r.node(), r.node()];
    r.order("software").unwrap();
    assert_eq!(code(r.order("hsm")), Code::Changed, "one order at a time");
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    r.report();
    assert!(r.renew(&mut all[0]) && r.show(&mut all[0]));
    r.order("software").unwrap();
    let c = r.add().unwrap();
    assert_eq!(r.trusted().len(), 3);
    let why = r.order("software").err().unwrap();
    assert!(why.code == Code::Changed && why.reason.contains("wait until one is dropped"), "{why}");
    r.settle(&mut all);
    assert_eq!(r.trusted(), [c]);
}

#[test]
fn an_old_root_is_replaced_by_itself_and_who_aborts_that_has_a_week() {
    let mut r = Roots::new();
    let half = 5 * 365 * DAY;
    r.w.pass(half - 3 * DAY);
    assert!(r.target().is_none());
    r.w.pass(6 * DAY);
    let t = r.target().unwrap();
    assert_eq!((t.kind, t.by.as_str()), (RootKind::Software, "vault"));
    let late = |r: &Roots| r.w.state.root_overdue(r.w.now).map(|d| d.as_secs() / 3600);
    let before = late(&r).unwrap();
    r.w.pass(HOUR);
    assert_eq!(r.target(), Some(t), "the same name: a key that was made already is found again");
    assert_eq!(late(&r), Some(before + 1), "as long as it cannot be made");
    r.keep_issuer();
    let b = r.add().unwrap();
    r.abort().unwrap();
    r.report();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Drop(b));
    r.settle(&mut []);
    assert!(r.target().is_none() && late(&r).is_none());
    r.w.pass(8 * DAY);
    assert!(r.target().is_some());
}

#[test]
fn what_changed_meanwhile_refuses_each_step() {
    let mut r = Roots::new();
    let a = r.signer();
    r.order("software").unwrap();
    let edits: [fn(&mut holdfast_vault_core::NewRoot); 5] = [
        |n| n.not_after = Millis(n.not_after.0 - 9 * 365 * DAY),
        |n| n.bundle.truncate(9),
        |n| n.key = CaKey::Token("root/other".into()),
        |n| n.issuer_der.clear(),
        |n| n.der = vec![1, 2, 3],
    ];
    for edit in edits {
        assert!(r.add_edited(edit).is_err());
    }
    let b = r.add().unwrap();
    let stranger = Digest([9; 32]);
    assert_eq!(code(r.w.propose(Command::RootSwitch { to: stranger }).result), Code::NotFound);
    assert_eq!(code(r.w.propose(Command::RootSwitch { to: a }).result), Code::Changed);
    assert_eq!(code(r.drop_root(a)), Code::Changed, "it signs");
    assert_eq!(code(r.w.propose(Command::RootDestroyed { root: b }).result), Code::NotFound);
    assert_eq!(code(r.w.propose(Command::RootDrop { root: b, bundle: vec![1] }).result), Code::Corrupt);
    // An issuer that was made under the root that signed before comes too late.
    let late = Command::NewIssuer { root: a, der: vec![1], key: CaKey::Offline, not_after: r.w.now };
    r.switch(b).unwrap();
    assert_eq!(code(r.w.propose(late).result), Code::Changed);
}

#[test]
fn only_admins_order_a_root_and_one_that_is_made_here_brings_nothing() {
    let mut w = World::new();
    assert_eq!(code(w.act(&["ada"], rotate("software"))), Code::Threshold);
    assert_eq!(code(w.act(&["cleo", "dora"], rotate("software"))), Code::PolicyDenied);
    assert_eq!(code(w.act(ADMINS, rotate("gold"))), Code::InvalidInput);
    let with_key = v1::RotateRoot { kind: "hsm".into(), key: "hsm".into(), ..Default::default() };
    assert_eq!(code(w.act(ADMINS, Action::RotateRoot(with_key))), Code::InvalidInput);
}

#[test]
fn a_key_of_a_dropped_root_is_named_until_it_is_destroyed_and_destroying_twice_is_fine() {
    let mut r = Roots::new();
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    r.report();
    r.drop_root(a).unwrap();
    assert_eq!((r.w.state.root_phase(), r.w.state.root_step(r.w.now)), ("retiring", RootStep::Destroy(a)));
    let kept = r.w.state.encode();
    r.w.propose(Command::RootDestroyed { root: a }).result.unwrap();
    assert_eq!(r.w.state.root_phase(), "stable");
    let (after, leaves) = (r.w.state.encode(), r.w.leaves.len());
    r.w.propose(Command::RootDestroyed { root: a }).result.unwrap();
    assert!(after == at_time(&r.w.state.encode(), r.w.now) && leaves == r.w.leaves.len() && kept != after);
    // A snapshot in the midst of it all is the same state.
    assert!(State::decode(&after).unwrap().encode() == after);
}

#[test]
fn whoever_slept_through_rotations_follows_the_bundles_from_the_root_it_knows() {
    let mut r = Roots::new();
    let mut all = [r.node()];
    let first = r.w.state.roots_der();
    for _ in 0..3 {
        r.order("software").unwrap();
        r.settle(&mut all);
        r.report();
    }
    let charters = r.charters();
    let found = verify_bundle_chain(&r.w.state.bundle_chain(), &first, Admins::ever(&charters), &r.w.cluster).unwrap();
    assert_eq!(found.doc.roots, r.w.state.roots_der());
    assert!(found.doc.roots != first && v1_bundle(r.w.state.bundle_chain().last().unwrap()).cross.is_empty());
    // What is served with a leaf does not grow for ever.
    assert!(r.vault.len() <= holdfast_pki::chain::MAX_CHAIN);
}

#[test]
fn orchestrators_are_told_to_renew_before_nodes_and_nobody_twice() {
    let mut r = Roots::new();
    let first = r.node();
    let orch = r.w.orchestrator();
    let second = r.node();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Switch(b));
    r.switch(b).unwrap();
    let told = r.w.state.to_renew(r.w.now, 10);
    assert_eq!((told.len(), &told[0]), (3, &orch.id));
    assert!(told.contains(&first.m.id) && told.contains(&second.m.id));
    assert_eq!(r.w.state.to_renew(r.w.now, 1), std::slice::from_ref(&orch.id));
    // Who is quarantined or removed is not waited for.
    r.w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: orch.id.clone() })).unwrap();
    assert!(!r.w.state.to_renew(r.w.now, 10).contains(&orch.id));
}

#[test]
fn an_issuer_of_the_root_that_signs_serves_it_and_each_root_keeps_its_own() {
    let mut r = Roots::new();
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    let (of_a, of_b) =
        (r.w.state.issuer_under(&a).unwrap().der.clone(), r.w.state.issuer_under(&b).unwrap().der.clone());
    assert_eq!(r.w.state.issuer().unwrap().der, of_a);
    r.w.pass(11 * DAY);
    r.keep_issuer();
    assert!(r.w.state.issuer_under(&a).unwrap().der != of_a && r.w.state.issuer_under(&b).unwrap().der == of_b);
    r.switch(b).unwrap();
    assert_eq!(r.w.state.issuer().unwrap().der, of_b);
    r.report();
    r.drop_root(a).unwrap();
    assert!(r.w.state.issuer_under(&a).is_none());
}

#[test]
fn a_certificate_that_was_signed_before_its_root_was_dropped_comes_too_late() {
    let mut r = Roots::new();
    let token = r.w.mint("node");
    let (nonce, hpke_pub) = ([3; 32], holdfast_wire::boxes::derive_keypair(&[4; 32]).1);
    let proof = r.w.proof(&token, &nonce, &crate::world::csr().1, &hpke_pub);
    let late = prepare::join(&r.w.leader(), token.id, &nonce, &proof, &mut r.w.entropy()).ok().unwrap();
    r.order("software").unwrap();
    r.settle(&mut []);
    assert_eq!(r.trusted().len(), 1);
    assert_eq!(code(r.w.apply(late.command).result), Code::Unavailable);
    // The token is good still, for a certificate under the root that signs now.
    r.report();
    r.w.try_join(&token).unwrap();
}
