//! What of a root counts: certificates that come late, keys that are still in the token, identifiers that two would share.

use super::world::{ADMINS, HOUR, Roots};
use holdfast_pki::given;
use holdfast_types::VoterId;
use holdfast_vault_core::{CaKey, Code, Command, Refusal, prepare};
use holdfast_wire::v1;
use v1::command::Action;

#[test]
fn what_was_signed_before_its_root_was_dropped_does_not_begin_to_count_after_it() {
    let mut r = Roots::new();
    let mut s = r.node();
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add().unwrap();
    // Signed while the old root signs, and on its way for as long as the rotation lasts.
    let (csr, bundle_epoch) = (crate::world::csr_of(&s.m.key), s.trust.doc.epoch);
    let ask = v1::RenewRequest { csr, hpke_pub: s.m.hpke_pub.to_vec(), bundle_epoch };
    let late = prepare::renew(&r.w.leader(), &s.m.id, &ask, &mut r.w.entropy()).ok().unwrap().command.command;
    r.switch(b).unwrap();
    r.report();
    r.w.pass(73 * HOUR);
    r.report();
    r.drop_root(a).unwrap();
    let refused = r.w.propose(late).result.err().unwrap();
    assert!(refused.code == Code::Unavailable && refused.reason.contains("dropped meanwhile"), "{refused}");
    assert_eq!(r.w.state.node_view(&s.m.id, true).unwrap().pending_serial, "");
    // Asked again, it is given one under the root that signs.
    assert!(r.renew(&mut s) && r.show(&mut s));
    assert_eq!(r.cert_root(&s), Some(b));
}

#[test]
fn a_root_stays_while_a_voter_shows_a_certificate_under_it() {
    let mut r = Roots::new();
    let says = |r: &mut Roots, serial: &str| {
        let said = v1::VoterReport { serial: serial.to_owned(), ..r.w.voter_report(1, r.reports) };
        r.w.says(1, &said, None).unwrap().is_some()
    };
    let newest = |r: &Roots| r.w.state.voter(VoterId(1)).unwrap().cert.clone().unwrap();
    r.report();
    let (a, first) = (r.signer(), newest(&r).serial);
    assert!(says(&mut r, &first) && !says(&mut r, &first), "it is news once");
    r.order("software").unwrap();
    let b = r.add().unwrap();
    r.switch(b).unwrap();
    // It is given one under the new root, and whoever meets it is shown the old one still: it has not stored it yet.
    r.report();
    assert_eq!(newest(&r).root, b);
    assert!(!says(&mut r, &first), "that is known");
    assert!(r.drop_root(a).is_err(), "who trusts the new root alone meets with a voter that shows the old one");
    let second = newest(&r).serial;
    assert!(says(&mut r, &second));
    r.drop_root(a).unwrap();
}

#[test]
fn the_token_is_needed_until_the_last_key_in_it_is_destroyed_and_each_key_goes_for_itself() {
    let mut r = Roots::new();
    let a = r.signer();
    assert!(!r.w.state.needs_token());
    r.order("hsm").unwrap();
    assert!(r.w.state.needs_token(), "it is to be made there");
    r.abort().unwrap();
    assert!(!r.w.state.needs_token());
    r.order("software").unwrap();
    let b = r.add_edited(|n| n.issuer_key = CaKey::Token("issuer/b".into())).unwrap();
    r.switch(b).unwrap();
    r.report();
    r.drop_root(a).unwrap();
    r.order("software").unwrap();
    let c = r.add().unwrap();
    r.switch(c).unwrap();
    r.report();
    r.drop_root(b).unwrap();
    assert!(r.w.state.needs_token(), "a key of its issuer is there still");
    assert_eq!(r.w.state.to_destroy(), [a, b]);
    // One that cannot be destroyed now keeps none of the others.
    r.w.propose(Command::RootDestroyed { root: b }).result.unwrap();
    assert_eq!((r.w.state.to_destroy(), r.w.state.needs_token()), (vec![a], false));
}

#[test]
fn keys_in_the_token_that_nothing_uses_any_more_are_named_until_they_are_destroyed() {
    let mut r = Roots::new();
    let cluster: String = r.w.cluster.hex().chars().take(16).collect();
    // An order that was taken back: its key may have been made already.
    r.order("hsm").unwrap();
    let name = r.target().unwrap().name;
    assert!(name.starts_with(&format!("root/{cluster}/")), "others share the token: {name}");
    assert!(r.w.state.spent_keys().is_empty(), "it is to be found again");
    r.abort().unwrap();
    assert_eq!(r.w.state.spent_keys(), [name.clone(), format!("issuer/{name}")]);
    // Issuers that are more than are kept.
    let mut issuers = Vec::new();
    for _ in 0..5 {
        r.w.pass(HOUR);
        issuers.push(prepare::issuer_name(&r.w.state));
        issuer_in_token(&mut r, issuers.last().unwrap()).unwrap();
    }
    let oldest = [issuers[0].clone()];
    assert_eq!(r.w.state.spent_keys()[2..], oldest, "the oldest in the token; the first of all was sealed here");
    // What is gone is named no more, and what is in use is never taken for it.
    let from = r.w.leaves.len();
    let gone = vec![issuers[0].clone(), issuers[4].clone(), name.clone()];
    r.w.propose(Command::KeysDestroyed(gone)).result.unwrap();
    assert_eq!(r.w.kinds_since(from), ["root.destroyed"; 2]);
    assert_eq!(r.w.state.spent_keys(), [format!("issuer/{name}")]);
}

/// An issuer whose key is in the token under this name.
fn issuer_in_token(r: &mut Roots, name: &str) -> Result<(), Refusal> {
    let (root, key) = (r.signer(), CaKey::Token(name.to_owned()));
    let (der, not_after) = (r.w.state.issuer().unwrap().der.clone(), r.w.now.plus(r.w.lives.issuer));
    r.w.propose(Command::NewIssuer { root, der, key, not_after }).result.map(drop)
}

#[test]
fn an_issuers_key_whose_entry_never_came_has_the_same_name_when_it_is_tried_again() {
    let mut r = Roots::new();
    let name = |r: &Roots| prepare::issuer_name(&r.w.state);
    let first = name(&r);
    r.w.pass(HOUR);
    assert_eq!(name(&r), first, "another key would be left in the token with each try");
    issuer_in_token(&mut r, &first).unwrap();
    let second = name(&r);
    assert_ne!(second, first);
    // Of two that were made at a time, under one name, one counts.
    assert_eq!(issuer_in_token(&mut r, &first).err().unwrap().code, Code::Changed);
    assert_eq!(name(&r), second);
    // A root with an issuer of its own moves the name on: what may have been made under it is destroyed by that name.
    assert!(r.w.state.spent_keys().is_empty());
    r.w.pass(HOUR);
    r.order("software").unwrap();
    r.add().unwrap();
    assert_ne!(name(&r), second);
    assert_eq!(r.w.state.spent_keys(), std::slice::from_ref(&second));
    assert_eq!(issuer_in_token(&mut r, &second).err().unwrap().code, Code::Changed, "it may be gone already");
}

#[test]
fn two_roots_of_one_key_identifier_are_never_trusted() {
    let mut r = Roots::new();
    let old = given::key_id(&r.w.state.roots_der()[0]).unwrap();
    r.order("software").unwrap();
    let same = |n: &mut holdfast_vault_core::NewRoot| {
        let own = given::key_id(&n.der).unwrap();
        let places: Vec<usize> = (0..n.der.len()).filter(|at| n.der[*at..].starts_with(&own)).collect();
        places.into_iter().for_each(|at| n.der[at..at + own.len()].copy_from_slice(&old));
    };
    let no = r.add_edited(same).err().unwrap();
    assert!(no.code == Code::InvalidInput && no.reason.contains("subjectKeyIdentifier"), "{no}");
}

#[test]
fn a_key_in_a_token_that_is_gone_for_good_is_forgotten_when_admins_say_so_and_not_before() {
    let mut r = Roots::new();
    let gone =
        |r: &mut Roots, who: &[&str]| r.w.act(who, Action::AbortRoot(v1::AbortRoot { key_is_gone: true })).map(drop);
    assert_eq!(gone(&mut r, ADMINS).err().unwrap().code, Code::Changed, "there is none");
    let a = r.signer();
    r.order("software").unwrap();
    let b = r.add_edited(|n| n.issuer_key = CaKey::Token("issuer/b".into())).unwrap();
    r.switch(b).unwrap();
    r.report();
    r.drop_root(a).unwrap();
    assert_eq!(gone(&mut r, ADMINS).err().unwrap().code, Code::Changed, "that one is sealed here, and is destroyed");
    r.w.propose(Command::RootDestroyed { root: a }).result.unwrap();
    r.order("software").unwrap();
    let c = r.add().unwrap();
    r.switch(c).unwrap();
    r.report();
    r.drop_root(b).unwrap();
    assert_eq!((r.w.state.root_phase(), r.w.state.needs_token()), ("retiring", true));
    assert_eq!(r.abort().err().unwrap().code, Code::Changed, "nothing is forgotten unless it is said");
    assert_eq!(gone(&mut r, &ADMINS[..1]).err().unwrap().code, Code::Threshold);
    let from = r.w.leaves.len();
    gone(&mut r, ADMINS).unwrap();
    assert_eq!((r.w.state.root_phase(), r.w.state.needs_token()), ("stable", false));
    assert_eq!(r.w.kinds_since(from), ["command"], "it is not said to be destroyed");
    assert_eq!(r.trusted(), [c]);
    assert_eq!(gone(&mut r, ADMINS).err().unwrap().code, Code::Changed, "once");
}
