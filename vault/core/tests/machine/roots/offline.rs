//! Roots that operators bring: with their key, or with a key that stays offline and signs what it is shown.

use super::world::{ADMINS, HOUR, Roots, v1_bundle};
use crate::world::SoftKey;
use holdfast_pki::csr::Request;
use holdfast_pki::issue::{IssuerCa, RootCa, new_root};
use holdfast_pki::keys::{CertSigner as _, RootStatementSigner};
use holdfast_types::Digest;
use holdfast_vault_core::prepare::{self, AtRest, RootMaterial};
use holdfast_vault_core::{CaKey, Code, Refusal, RootKind, RootStep};
use holdfast_wire::statement::sign_payload;
use holdfast_wire::v1;
use std::time::Duration;
use v1::command::Action;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn root_of(r: &Roots, key: &SoftKey, life: Duration) -> Vec<u8> {
    new_root(key, &r.w.cluster, r.w.fresh16(), r.w.now, life).unwrap().der
}

fn given(cert: &[u8], key: &str) -> v1::RotateRoot {
    v1::RotateRoot { kind: "given".into(), cert: cert.to_vec(), key: key.into(), ..Default::default() }
}

/// Orders a root whose key travels with the order.
fn order_with_key(r: &mut Roots, cert: &[u8], pkcs8: &[u8]) -> Result<(), Refusal> {
    let id = r.w.fresh16();
    let sealed = r.w.intake(prepare::ROOT_KEY, 0, &id, pkcs8);
    let order = v1::RotateRoot { box_sha256: holdfast_types::sha256(&[&sealed]).to_vec(), ..given(cert, "") };
    let c = v1::Command { command_id: id.to_vec(), ..r.w.command(Action::RotateRoot(order)) };
    let st = r.w.sign(&c, ADMINS);
    r.w.submit(&st, &sealed).map(drop)
}

#[test]
fn operators_bring_a_root_with_its_key() {
    let mut r = Roots::new();
    let (key, other) = (SoftKey::new(), SoftKey::new());
    let cert = root_of(&r, &key, 5 * YEAR);
    let wrong = order_with_key(&mut r, &cert, other.pkcs8().expose()).err().unwrap();
    assert!(wrong.code == Code::InvalidInput && wrong.reason.contains("not the certificate's"), "{wrong}");
    order_with_key(&mut r, &cert, key.pkcs8().expose()).unwrap();
    let t = r.target().unwrap();
    let brought = t.given.unwrap();
    assert_eq!((t.kind, &brought.der, brought.key.name()), (RootKind::Given, &cert, Some(t.name.as_str())));
    let sealed = brought.key.sealed().unwrap();
    let opened = r.w.keys.open("ca", &sealed.name, 1, &sealed.record).unwrap();
    assert_eq!(holdfast_pki::given::p256_of_pkcs8(opened.expose()), Some(key.sec1()));
}

#[test]
fn a_root_that_would_not_work_is_refused_with_the_reason() {
    let mut r = Roots::new();
    let (key, stranger) = (SoftKey::new(), holdfast_types::ClusterId([9; 32]));
    let of_other = new_root(&key, &stranger, [1; 16], r.w.now, 5 * YEAR).unwrap().der;
    let again = r.w.state.roots_der().remove(0);
    let short = root_of(&r, &key, YEAR);
    let mut broken = root_of(&r, &key, 5 * YEAR);
    *broken.last_mut().unwrap() ^= 1;
    let cases: [(&[u8], &str); 5] = [
        (&[1, 2, 3], "not a certificate"),
        (&of_other, "names the cluster"),
        (&again, "no root here had before"),
        (&short, "two years"),
        (&broken, "self-signed"),
    ];
    for (cert, why) in cases {
        let no = r.w.act(ADMINS, Action::RotateRoot(given(cert, "offline"))).err().unwrap();
        assert!(no.code == Code::InvalidInput && no.reason.contains(why), "{why}: {no}");
    }
}

/// A root whose key stays offline is trusted, and asked.
fn with_offline() -> (Roots, SoftKey, Digest) {
    let mut r = Roots::new();
    let (key, issuer) = (SoftKey::new(), SoftKey::new());
    let cert = root_of(&r, &key, 9 * YEAR);
    r.w.act(ADMINS, Action::RotateRoot(given(&cert, "offline"))).unwrap();
    let (signer, first) = (r.signer(), r.key(&r.signer()));
    let made = RootMaterial {
        signer: None,
        der: Some(&cert),
        key: CaKey::Offline,
        issuer: &issuer,
        issuer_key: CaKey::Offline,
        old: &[(signer, first)],
        life: YEAR,
    };
    let p = prepare::add_root(&r.w.leader(), made, &mut r.w.entropy());
    r.w.commit(p).unwrap();
    let root = r.w.state.roots().last().unwrap().sha256();
    (r, key, root)
}

fn ask(r: &mut Roots, root: &Digest) -> SoftKey {
    let (issuer, now, life) = (SoftKey::new(), r.w.now, r.w.lives.issuer);
    let stk = crate::world::named_key(&format!("asked at {}", now.0));
    let mut entropy = r.w.entropy();
    let name = prepare::issuer_name(&r.w.state);
    let key = prepare::ca_key(&r.w.keys, &name, AtRest::Sealed(&issuer.private()), &mut entropy).unwrap();
    let p = prepare::ask_offline(&r.w.state, &r.w.keys, root, &issuer, key, &stk, life, now, &mut entropy);
    r.w.commit(p).unwrap();
    issuer
}

/// What `holdfast root sign` makes of what was shown.
fn signed(r: &Roots, root: &Digest, key: &SoftKey) -> v1::InstallIssuer {
    let view = r.w.state.roots_view(r.w.now, |_| false);
    let ca_der = r.w.state.root(root).unwrap().der.clone();
    let request = Request::parse(&view.issuer_csr).unwrap();
    let ca = RootCa::open(&ca_der, key).unwrap();
    let issuer = ca.issuer(request.key(), r.w.fresh16(), r.w.now, r.w.lives.issuer).unwrap().der;
    let payload = prost::Message::encode_to_vec(&view.next_bundle.unwrap());
    let bundle = sign_payload::<v1::Bundle>(payload, &[&RootStatementSigner(key)]).unwrap();
    v1::InstallIssuer { issuer, bundle: Some(bundle) }
}

fn install(r: &mut Roots, i: v1::InstallIssuer) -> Result<(), Refusal> {
    r.w.act(ADMINS, Action::InstallIssuer(i)).map(drop)
}

#[test]
fn an_offline_root_signs_what_it_is_shown_and_takes_over() {
    let (mut r, key, root) = with_offline();
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Nothing, "there is no issuer yet");
    assert_eq!(r.w.state.to_ask(r.w.now), Some(root));
    ask(&mut r, &root);
    assert_eq!(r.w.state.to_ask(r.w.now), None);
    let i = signed(&r, &root, &key);
    // The cluster goes on while the request is carried about.
    let epoch = r.w.state.epoch();
    r.w.act(&["ada"], Action::Lockdown(v1::Lockdown { reason: "drill".into() })).unwrap();
    assert!(r.w.state.epoch() > epoch);
    install(&mut r, i.clone()).unwrap();
    assert_eq!(r.w.state.issuer_under(&root).unwrap().der, i.issuer);
    assert_eq!((r.w.state.bundle_epoch(), r.w.state.rotation().asked.is_none()), (r.w.state.epoch(), true));
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Switch(root));
    assert_eq!(install(&mut r, i).err().unwrap().code, Code::Changed, "it is there already");
    r.w.propose(holdfast_vault_core::Command::RootSwitch { to: root }).result.unwrap();
    let no = r.w.act(ADMINS, Action::RotateKeyring(v1::RotateKeyring {})).err().unwrap();
    assert!(no.code == Code::Changed && no.reason.contains("--without-old-root"), "{no}");
    // One that is due by itself waits, and that is known.
    let ninety = 90 * Duration::from_secs(86_400);
    assert!(!r.w.state.keyring_waits(r.w.now, ninety), "none is due");
    let late = r.w.now.plus(ninety);
    assert!(r.w.state.keyring_due(late, ninety) && r.w.state.keyring_waits(late, ninety));
    // Nothing that needs its key is tried without it; a third into the issuer's life it is asked again.
    r.w.pass(15 * 24 * HOUR);
    let life = r.w.lives.issuer;
    assert!(!r.w.state.issuer_due(r.w.now) && !r.w.state.stk_due(r.w.now, life));
    assert_eq!(r.w.state.to_ask(r.w.now), Some(root));
}

#[test]
fn an_offline_root_is_asked_for_the_next_statement_key_however_long_its_issuer_lives() {
    let (mut r, key, root) = with_offline();
    ask(&mut r, &root);
    let life = std::mem::replace(&mut r.w.lives.issuer, YEAR);
    let i = signed(&r, &root, &key);
    r.w.lives.issuer = life;
    install(&mut r, i).unwrap();
    r.w.propose(holdfast_vault_core::Command::RootSwitch { to: root }).result.unwrap();
    assert_eq!(r.w.state.to_ask(r.w.now), None);
    r.w.pass(11 * 24 * HOUR);
    let issuer = r.w.state.issuer().unwrap();
    assert!(issuer.not_after > r.w.now.plus(YEAR / 2), "the issuer is young");
    assert_eq!(r.w.state.to_ask(r.w.now), Some(root), "a third of the statement key's life is over");
}

#[test]
fn no_other_root_is_ordered_where_an_offline_one_is_the_only_one() {
    let (mut r, key, root) = with_offline();
    let a = r.signer();
    let issuer = ask(&mut r, &root);
    let i = signed(&r, &root, &key);
    install(&mut r, i).unwrap();
    r.w.propose(holdfast_vault_core::Command::RootSwitch { to: root }).result.unwrap();
    r.w.issuer = Some(IssuerCa::open(&r.w.state.issuer().unwrap().der, issuer).unwrap());
    r.report();
    let signers = [r.key(&a)];
    let p = prepare::drop_root(&r.w.state, &signers, &a, r.w.now, &mut r.w.entropy());
    r.w.commit(p).unwrap();
    assert_eq!(r.trusted(), [root]);
    let no = r.order("software").err().unwrap();
    assert!(no.code == Code::Changed && no.reason.contains("offline"), "{no}");
}

#[test]
fn what_an_offline_root_was_not_asked_for_is_refused_with_the_reason() {
    let (mut r, key, root) = with_offline();
    ask(&mut r, &root);
    let good = signed(&r, &root, &key);
    let ca_der = r.w.state.root(&root).unwrap().der.clone();
    let stranger = holdfast_pki::keys::SubjectKey::from_sec1(&SoftKey::new().sec1()).unwrap();
    let ca = RootCa::open(&ca_der, &key).unwrap();
    let other_key = ca.issuer(&stranger, [3; 16], r.w.now, YEAR).unwrap().der;
    let mut other_bundle = good.clone();
    let changed = v1::Bundle { epoch: 9, ..v1_bundle(good.bundle.as_ref().unwrap()) };
    let payload = prost::Message::encode_to_vec(&changed);
    other_bundle.bundle = Some(sign_payload::<v1::Bundle>(payload, &[&RootStatementSigner(&key)]).unwrap());
    let mut unsigned = good.clone();
    unsigned.bundle.as_mut().unwrap().sigs.clear();
    let cases = [
        (v1::InstallIssuer { issuer: other_key, ..good.clone() }, "not for the key in the request"),
        (v1::InstallIssuer { issuer: ca_der, ..good.clone() }, "not for the key in the request"),
        (v1::InstallIssuer { issuer: vec![1], ..good.clone() }, "not a certificate"),
        (v1::InstallIssuer { bundle: None, ..good.clone() }, "bundle is missing"),
        (other_bundle, "not the bundle that was shown last"),
        (unsigned, "bundle"),
    ];
    for (i, why) in cases {
        let no = install(&mut r, i).err().unwrap();
        assert!(no.reason.contains(why), "{why}: {no}");
    }
    // What it was asked before is void once it is asked again.
    r.w.pass(HOUR);
    ask(&mut r, &root);
    assert_eq!(install(&mut r, good).err().unwrap().code, Code::Changed);
    r.w.pass(40 * 24 * HOUR);
    assert!(r.w.now > r.w.state.rotation().asked.as_ref().unwrap().stk.until);
    assert_eq!(r.w.state.to_ask(r.w.now), Some(root), "the statement key in it is over");
}

#[test]
fn a_root_that_operators_brought_is_theirs_to_replace_and_they_are_told_in_time() {
    let mut r = Roots::new();
    let a = r.signer();
    let (key, issuer) = (SoftKey::new(), SoftKey::new());
    let cert = root_of(&r, &key, 8 * YEAR);
    order_with_key(&mut r, &cert, key.pkcs8().expose()).unwrap();
    let brought = r.target().unwrap().given.unwrap();
    let name = prepare::issuer_name(&r.w.state);
    let at_rest = issuer.private();
    let issuer_key = prepare::ca_key(&r.w.keys, &name, AtRest::Sealed(&at_rest), &mut r.w.entropy()).unwrap();
    let old = [(a, r.key(&a))];
    let made = RootMaterial {
        signer: Some(&key),
        der: Some(&cert),
        key: brought.key,
        issuer: &issuer,
        issuer_key,
        old: &old,
        life: YEAR,
    };
    let p = prepare::add_root(&r.w.leader(), made, &mut r.w.entropy());
    r.w.commit(p).unwrap();
    let root = r.w.state.roots().last().unwrap().sha256();
    r.w.propose(holdfast_vault_core::Command::RootSwitch { to: root }).result.unwrap();
    r.w.issuer = Some(IssuerCa::open(&r.w.state.issuer().unwrap().der, issuer).unwrap());
    r.report();
    let signers = [r.key(&a)];
    let p = prepare::drop_root(&r.w.state, &signers, &a, r.w.now, &mut r.w.entropy());
    r.w.commit(p).unwrap();
    assert_eq!(r.trusted(), [root]);
    r.w.propose(holdfast_vault_core::Command::RootDestroyed { root: a }).result.unwrap();
    let year = 365 * 24 * HOUR;
    r.w.pass(4 * year - 24 * HOUR);
    assert!(!r.w.state.root_to_bring(r.w.now));
    r.w.pass(48 * HOUR);
    assert!(r.w.state.root_to_bring(r.w.now), "half of its life is over");
    r.w.pass(3 * year);
    assert_eq!(r.w.state.root_step(r.w.now), RootStep::Nothing, "nobody is asked to make another one");
    assert_eq!(r.w.state.root_overdue(r.w.now), None);
    // The cluster's own, as old: it replaces that one by itself, and tells nobody.
    let mut r = Roots::new();
    r.w.pass(6 * year);
    assert!(r.w.state.root_overdue(r.w.now).is_some() && !r.w.state.root_to_bring(r.w.now));
}
