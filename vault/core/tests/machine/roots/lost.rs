//! Roots that cannot sign, their token dead or their keys away: Admins sign for another one in their place.

use super::world::{ADMINS, HOUR, Roots, v1_bundle};
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_pki::keys::CertSigner;
use holdfast_types::Digest;
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Code, Command, Refusal, RootStep};
use holdfast_wire::v1;
use proptest::prelude::*;
use v1::command::Action;

fn order(r: &mut Roots) -> Result<(), Refusal> {
    let wanted = v1::RotateRoot { kind: "software".into(), without_old: true, ..Default::default() };
    r.w.act(ADMINS, Action::RotateRoot(wanted)).map(drop)
}

fn shown(r: &Roots) -> Option<v1::Statement> {
    r.w.state.roots_view(r.w.now, |_| false).to_approve
}

/// What `holdfast root approve` does.
fn approve(r: &mut Roots, who: &[&str]) -> Result<(), Refusal> {
    let st = r.w.sign(&v1_bundle(&shown(r).unwrap()), who);
    r.w.submit(&st, &[]).map(drop)
}

/// A root is made without the old one, and shown.
fn proposed(r: &mut Roots) -> Digest {
    order(r).unwrap();
    r.add().unwrap()
}

#[test]
fn a_root_that_cannot_sign_is_replaced_with_the_signatures_of_admins_under_nodes_that_follow() {
    let mut r = Roots::new();
    let mut node = r.node();
    let (old, founded) = (r.signer(), r.w.state.roots_der());
    let new = proposed(&mut r);
    assert_eq!(
        (r.trusted(), r.w.state.root_step(r.w.now)),
        (vec![old], RootStep::Nothing),
        "it is trusted by nobody yet"
    );
    let waits = |r: &Roots| r.w.state.roots_view(r.w.now, |_| false).waits_for;
    assert!(waits(&r).starts_with("0 of 2 Admins"), "{}", waits(&r));
    // The cluster goes on while they are asked.
    r.w.act(&["ada"], Action::Lockdown(v1::Lockdown { reason: "drill".into() })).unwrap();
    approve(&mut r, &["ada"]).unwrap();
    let log = r.w.state.log_head();
    approve(&mut r, &["ada"]).unwrap();
    assert_eq!(r.w.state.log_head(), log, "nothing is written of who signs again");
    assert!(waits(&r).starts_with("1 of 2 Admins") && r.trusted() == [old], "one counts once: {}", waits(&r));
    approve(&mut r, &["ben"]).unwrap();
    assert_eq!((r.trusted(), shown(&r)), (vec![old, new], None));
    assert_eq!((r.w.state.bundle_epoch(), r.w.state.rotation().proposed.is_none()), (r.w.state.epoch(), true));
    // Nothing certifies the new root: it signs only once everybody alive has said that it trusts it.
    assert!(r.w.state.root(&new).unwrap().cross.is_empty());
    let early = r.w.state.switch_guard(&new).err().unwrap();
    assert!(early.reason.contains(&node.m.id), "{early}");
    r.deliver(&mut node);
    r.ack(&node);
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Switch(new));
    r.switch(new).unwrap();
    r.report();
    assert!(r.renew(&mut node) && r.show(&mut node));
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Drop(old));
    // The new root alone signs the old one's end.
    let alone: [&dyn CertSigner; 1] = [r.key(&new)];
    let p = prepare::drop_root(&r.w.state, &alone, &old, r.w.now, &mut r.w.entropy());
    r.w.commit(p).unwrap();
    assert_eq!((r.trusted(), r.w.state.rotation().gone.len()), (vec![new], 0));
    r.deliver(&mut node);
    assert_eq!(node.trust.doc.roots, r.w.state.roots_der());
    // Whoever slept through all of it follows too, from the root that it knew.
    let charters = r.charters();
    let found = verify_bundle_chain(&r.w.state.bundle_chain(), &founded, Admins::ever(&charters), &r.w.cluster);
    assert_eq!(found.unwrap().doc.roots, r.w.state.roots_der());
    // And the new root signs what comes after as any other.
    assert_eq!(v1_bundle(r.w.state.bundle_chain().last().unwrap()).charter_version, 0);
    if r.w.state.root_step(r.w.now) == RootStep::Destroy(old) {
        r.w.propose(Command::RootDestroyed { root: old }).result.unwrap();
    }
    r.order("software").unwrap();
    r.settle(&mut [node]);
}

#[test]
fn what_is_shown_to_admins_is_made_anew_when_it_follows_no_more_and_old_signatures_count_for_nothing() {
    let mut r = Roots::new();
    let first = proposed(&mut r);
    approve(&mut r, &["ada"]).unwrap();
    let stale = shown(&r).unwrap();
    // A root could sign after all: the bundle moves.
    let stk = crate::world::named_key("another stk");
    let p = {
        let (w, life) = (&r.w, r.w.lives.issuer);
        prepare::new_stk(&w.state, &w.keys, &w.root, &stk, life, w.now, &mut w.entropy())
    };
    r.w.commit(p).unwrap();
    assert_eq!(shown(&r), None);
    let no = r.w.submit(&r.w.sign(&v1_bundle(&stale), &["ben"]), &[]).err().unwrap();
    assert!(no.code == Code::Changed && no.reason.contains("no root waits"), "{no}");
    assert!(matches!(r.w.state.root_step(r.w.now), RootStep::Make(_)));
    let second = r.add().unwrap();
    assert!(first != second && shown(&r).is_some());
    let no = r.w.submit(&r.w.sign(&v1_bundle(&stale), &["ben"]), &[]).err().unwrap();
    assert!(no.code == Code::Changed && no.reason.contains("not the bundle that is shown"), "{no}");
    approve(&mut r, ADMINS).unwrap();
    assert_eq!(r.trusted().last(), Some(&second));
    // The same again, as after a lost answer, changes nothing.
    let in_force = r.w.state.bundle_chain().pop().unwrap();
    let (again, size) = (r.w.sign(&v1_bundle(&in_force), &["ben"]), r.w.state.log_head());
    r.w.submit(&again, &[]).unwrap();
    assert_eq!(r.w.state.log_head(), size);
}

#[test]
fn too_few_admins_or_none_in_force_add_no_root() {
    let mut r = Roots::new();
    proposed(&mut r);
    let before = r.trusted();
    for who in [&["cleo"][..], &["oz", "sam"], &["cleo", "dora", "pat"]] {
        let no = approve(&mut r, who).err().unwrap();
        assert!([Code::Threshold, Code::BadCredential, Code::PolicyDenied].contains(&no.code), "{who:?}: {no}");
    }
    // Nor does the leader, whatever it calls it.
    let st = shown(&r).unwrap();
    let mut made = r.w.state.rotation().proposed.as_deref().cloned().unwrap();
    made.bundle = prost::Message::encode_to_vec(&st);
    let no = r.w.propose(Command::RootAdd(Box::new(made.clone()))).result.err().unwrap();
    assert!(no.reason.contains("Admins do"), "{no}");
    r.abort().unwrap();
    let no = r.w.propose(Command::RootPropose(Box::new(made.clone()))).result.err().unwrap();
    assert!(no.reason.contains("no root is wanted"), "{no}");
    r.order("software").unwrap();
    assert!(r.w.propose(Command::RootPropose(Box::new(made))).result.is_err());
    assert_eq!((r.trusted(), shown(&r)), (before, None));
}

#[test]
fn a_root_that_is_given_up_before_admins_have_signed_is_never_trusted() {
    let mut r = Roots::new();
    let before = r.trusted();
    proposed(&mut r);
    approve(&mut r, &["ada"]).unwrap();
    let st = shown(&r).unwrap();
    r.abort().unwrap();
    let late = r.w.submit(&r.w.sign(&v1_bundle(&st), ADMINS), &[]).err().unwrap();
    assert_eq!((late.code, r.trusted(), r.w.state.root_phase()), (Code::Changed, before, "stable"));
}

#[test]
fn an_issuer_of_a_root_that_waited_too_long_is_made_anew() {
    let mut r = Roots::new();
    proposed(&mut r);
    r.w.pass(31 * 24 * HOUR);
    assert_eq!(shown(&r), None);
    assert!(matches!(r.w.state.root_step(r.w.now), RootStep::Make(t) if t.without_old));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// INV8: whoever signs, in whichever order and however often, the root is trusted once both Admins have, and not before.
    #[test]
    fn nobody_but_enough_admins_adds_a_root_that_no_root_signed_for(
        signs in proptest::collection::vec(proptest::sample::select(vec!["ada", "ben", "cleo", "oz", "pat"]), 0..8),
    ) {
        let mut r = Roots::new();
        let new = proposed(&mut r);
        let mut signed = std::collections::BTreeSet::new();
        for who in signs {
            let done = approve_if_shown(&mut r, who);
            signed.insert(who);
            let admin = ADMINS.contains(&who);
            prop_assert_eq!(done.unwrap_or(admin), admin);
            let enough = ADMINS.iter().all(|a| signed.contains(a));
            prop_assert_eq!(r.trusted().contains(&new), enough);
        }
    }
}

/// `None`: there is nothing to sign any more.
fn approve_if_shown(r: &mut Roots, who: &str) -> Option<bool> {
    shown(r)?;
    Some(approve(r, &[who]).is_ok())
}
