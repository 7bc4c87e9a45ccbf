//! The next charter: who must sign it, and what follows for operators, for the recovery key and for the voters' slots.

use super::keyring::add_term;
use crate::world::World;
use holdfast_types::{ClusterId, Role, Secret, sha256};
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Code, Command, Keyring, NewTerm, State};
use holdfast_wire::boxes::{PrivateKey, derive_keypair};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::v1;

/// The charter that follows the one in force, with what `change` does to it.
fn next(w: &World, change: impl FnOnce(&mut v1::Charter)) -> v1::Charter {
    let last = w.state.charter_chain().pop().unwrap();
    let mut c = v1::Charter {
        version: w.state.charter().version + 1,
        prev_sha256: sha256(&[&last.payload]).to_vec(),
        founding_nonce: Vec::new(),
        ..w.state.charter().clone()
    };
    change(&mut c);
    c
}
fn roles(c: &mut v1::Charter, id: &str, roles: &[&str]) {
    let o = c.operators.iter_mut().find(|o| o.id == id).unwrap();
    o.roles = roles.iter().map(|r| (*r).to_owned()).collect();
}
fn recovery(c: &mut v1::Charter, pk: &[u8; 32]) {
    c.recovery.as_mut().unwrap().public_key = pk.to_vec();
}
/// The newest boxes to the recovery key that a committed command brought.
fn boxes_in(w: &World) -> Vec<(u32, Vec<u8>)> {
    let sealed = |c: &Command| if let Command::Submit(s) = c { s.sealed.clone() } else { None };
    let bytes = w.log.iter().rev().find_map(|c| sealed(&c.command)).unwrap();
    // A count, then each term with its box: as the state takes it in.
    let (terms, rest): (Vec<(u32, Vec<u8>)>, _) = postcard::take_from_bytes(&bytes).unwrap();
    assert!(rest.is_empty());
    terms
}
fn open(cluster: &ClusterId, sk: &PrivateKey, (term, b): &(u32, Vec<u8>)) -> bool {
    Keyring::open_recovery_box(cluster, sk, *term, b).is_ok()
}

#[test]
fn the_next_charter_needs_the_old_and_the_new_admins() {
    let mut w = World::new();
    let c = next(&w, |c| roles(c, "dora", &["Admin"]));
    let mut refused = |who: &[&str]| {
        let st = w.sign(&c, who);
        w.submit(&st, &[]).err().unwrap().code
    };
    assert_eq!(refused(&["ada"]), Code::Threshold, "too few of the old");
    assert_eq!(refused(&["ada", "dora"]), Code::Threshold, "dora is no Admin yet");
    assert_eq!(refused(&["ada", "ben"]), Code::Threshold, "and all three of the new");
    let st = w.sign(&c, &["ada", "ben", "dora"]);
    w.submit(&st, &[]).unwrap();
    assert_eq!(w.state.charter().version, 2);
    let read = State::decode(&w.state.encode()).unwrap();
    assert_eq!(read.charter(), w.state.charter());
    let again = w.sign(&next(&w, |c| c.version = 2), &["ada", "ben", "dora"]);
    assert_eq!(w.submit(&again, &[]).err().unwrap().code, Code::InvalidInput, "another one of this version");
    let gap = w.sign(&next(&w, |c| c.version = 4), &["ada", "ben", "dora"]);
    assert_eq!(w.submit(&gap, &[]).err().unwrap().code, Code::InvalidInput);
}

#[test]
fn a_charter_that_could_lock_everybody_out_is_refused() {
    let mut w = World::new();
    let none = next(&w, |c| c.recovery = None);
    let many = next(&w, |c| c.thresholds.push(v1::Threshold { action: "rotateKeyring".into(), k: 3 }));
    let odd = next(&w, |c| c.thresholds.push(v1::Threshold { action: "fly".into(), k: 1 }));
    for c in [none, many, odd] {
        let st = w.sign(&c, &["ada", "ben"]);
        assert_eq!(w.submit(&st, &[]).err().unwrap().code, Code::InvalidInput);
    }
    assert_eq!(w.state.charter().version, 1);
}

#[test]
fn a_new_recovery_key_opens_every_live_term_and_the_old_one_nothing_new() {
    let mut w = World::new();
    add_term(&mut w).unwrap();
    let ((old, old_pk), (new, new_pk)) = (derive_keypair(&[21; 32]), derive_keypair(&[22; 32]));
    for (version, pk) in [(2, &old_pk), (3, &new_pk)] {
        let c = next(&w, |c| recovery(c, pk));
        let st = w.sign(&c, &["ada", "ben"]);
        w.submit(&st, &[]).unwrap();
        assert_eq!(w.state.wanted_slots().unwrap().recovery, (version, *pk));
    }
    let boxed = boxes_in(&w);
    assert_eq!(boxed.iter().map(|(t, _)| *t).collect::<Vec<_>>(), vec![1, 2]);
    assert!(boxed.iter().all(|b| open(&w.cluster, &new, b)));
    assert!(boxed.iter().all(|b| !open(&w.cluster, &old, b)));
    assert!(!open(&w.cluster, &new, &(2, boxed[0].1.clone())), "a box is of its own term");
    add_term(&mut w).unwrap();
    let Command::KeyringAdd(t) = w.log.last().unwrap().command.clone() else { panic!("no new term") };
    let third = (3, t.recovery_box);
    assert!(open(&w.cluster, &new, &third) && !open(&w.cluster, &old, &third));
}

#[test]
fn a_charter_that_brings_no_box_of_the_newest_term_is_refused() {
    let mut w = World::new();
    let (_, pk) = derive_keypair(&[22; 32]);
    let c = next(&w, |c| recovery(c, &pk));
    let st = w.sign(&c, &["ada", "ben"]);
    let early = prepare::submit(&w.leader(), &st, &[], &mut w.entropy());
    add_term(&mut w).unwrap();
    assert_eq!(w.commit(early).err().unwrap().code, Code::Changed);
    w.submit(&st, &[]).unwrap();
    assert_eq!(boxes_in(&w).len(), 2);
}

#[test]
fn a_term_boxed_to_a_former_recovery_key_is_refused() {
    let mut w = World::new();
    let term = |w: &World| {
        let fresh = Secret::take(&mut [31; 32]);
        let p = prepare::new_term(&w.leader(), &w.root, fresh, &mut w.entropy()).ok().unwrap();
        let Command::KeyringAdd(t) = p.command.command else { panic!("no new term") };
        t
    };
    let former = term(&w);
    let (_, pk) = derive_keypair(&[22; 32]);
    let c = next(&w, |c| recovery(c, &pk));
    let st = w.sign(&c, &["ada", "ben"]);
    w.submit(&st, &[]).unwrap();
    let now = term(&w);
    let mixed = NewTerm { recovery_box: former.recovery_box.clone(), ..(*now).clone() };
    assert_eq!(w.propose(Command::KeyringAdd(Box::new(mixed))).result.unwrap_err().code, Code::Changed);
    assert_eq!(w.propose(Command::KeyringAdd(former)).result.unwrap_err().code, Code::Changed);
    w.propose(Command::KeyringAdd(now)).result.unwrap();
}

#[test]
fn a_charter_with_the_same_recovery_key_brings_no_boxes_and_a_new_slot() {
    let mut w = World::new();
    let before = w.state.wanted_slots().unwrap().recovery;
    let st = w.sign(&next(&w, |c| roles(c, "oz", &["Auditor", "Deployer"])), &["ada", "ben"]);
    let p = prepare::submit(&w.leader(), &st, &[], &mut w.entropy()).ok().unwrap();
    assert!(matches!(&p.command.command, Command::Submit(s) if s.sealed.is_none()));
    w.apply(p.command).result.unwrap();
    assert_eq!(w.state.wanted_slots().unwrap().recovery, (2, before.1));
}

#[test]
fn an_operator_whose_key_is_not_in_the_charter_any_more_is_shut_out() {
    let mut w = World::new();
    let spki = sha256(&[b"terminal of sam"]);
    let cert = holdfast_vault_core::CertFacts {
        seq: 1,
        serial: "0a".into(),
        spki,
        not_after: holdfast_types::Millis(w.now.0 + 3_600_000),
        root: w.state.signing_root_sha256().unwrap(),
    };
    let login = w.sign(&v1::Login { operator_id: "sam".into(), ..Default::default() }, &["sam"]);
    let statement = prost::Message::encode_to_vec(&login);
    w.propose(Command::Login { id: "sam".into(), statement, cert }).result.unwrap();
    assert!(w.show(Role::Op, "sam", "0a", &spki));
    let c = next(&w, |c| c.operators.iter_mut().find(|o| o.id == "sam").unwrap().key = Some(other_key()));
    let st = w.sign(&c, &["ada", "ben"]);
    let p = prepare::submit(&w.leader(), &st, &[], &mut w.entropy()).ok().unwrap();
    let done = w.apply(p.command);
    assert!(done.events.contains(&holdfast_vault_core::Event::Revoked("sam".into())));
    assert!(!w.show(Role::Op, "sam", "0a", &spki), "the name is still there, the key is not");
}
fn other_key() -> v1::PublicKey {
    crate::world::named_key("another key of sam").public()
}
