//! What lies in the token, by a plain PKCS#11 program: our keys cannot be got out, and one that could is none of ours.

use crate::{Faulty, LONG, objects};
use holdfast_hsm::{KeyError, KeyId, KeyPort as _, Purpose};
use holdfast_hsm_shim::tokens::{PIN, TestToken};
use std::process::Command;

/// What the program prints about the token of SoftHSM.
pub fn plain(token: &TestToken, what: &str, more: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast-hsm-plain"));
    let done = program.arg(what).arg(token.module()).args(more).envs(token.env()).output().unwrap();
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn plant(token: &TestToken, kind: &str, id: &KeyId, sensitive: &str, extractable: &str) {
    plain(token, kind, &["holdfast", PIN, &id.to_string(), sensitive, extractable]);
}

#[test]
fn every_key_that_is_made_is_sensitive_and_not_extractable_from_its_first_moment() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    let mut ids = [
        port.generate(Purpose::Root, b"a").unwrap(),
        port.generate(Purpose::Issuer, b"a").unwrap(),
        KeyId::wrapping("by aes"),
        KeyId::wrapping("by rsa"),
    ];
    port.wrap("by aes", b"x", b"").unwrap();
    faulty.token.faults(&["C_GetMechanismInfo hide 0x1087", "C_GetMechanismInfo hide 0x210a"]);
    port.wrap("by rsa", b"x", b"").unwrap();
    ids.sort_unstable();
    let kept = "sensitive=true extractable=false always-sensitive=true never-extractable=true readable=false";
    let expected: Vec<_> = ids.iter().map(|id| format!("{id} {kept}")).collect();
    let said = plain(&faulty.token, "keys", &["holdfast", PIN]);
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, expected);
}

#[test]
fn a_key_of_our_id_that_the_token_would_give_away_is_refused_and_left_alone() {
    let (id, wrapping) = (KeyId::of(Purpose::Root, b"a"), KeyId::wrapping("a"));
    let refused = |id: &KeyId| KeyError::Refused(format!("the token would give the key {id} away"));
    assert_eq!(refused(&id).word(), "token-refused");
    for (sensitive, extractable) in [("true", "true"), ("false", "false"), ("false", "true")] {
        let faulty = Faulty::new();
        plant(&faulty.token, "pair", &id, sensitive, extractable);
        plant(&faulty.token, "aes", &wrapping, sensitive, extractable);
        let before = plain(&faulty.token, "keys", &["holdfast", PIN]);
        assert_eq!(before.lines().filter(|l| l.contains(&format!("extractable={extractable} "))).count(), 2);
        let port = faulty.port(PIN, LONG);
        assert_eq!(port.generate(Purpose::Root, b"a"), Err(refused(&id)));
        assert_eq!(port.sign_p256(&id, b"m"), Err(refused(&id)));
        assert_eq!(port.public(&id), Err(refused(&id)));
        assert_eq!(port.wrap("a", b"x", b""), Err(refused(&wrapping)));
        assert_eq!(plain(&faulty.token, "keys", &["holdfast", PIN]), before);
        assert_eq!(objects(faulty.dir.path()).len(), 3, "two of the pair, one that wraps");
        // It spoils no other.
        let other = port.generate(Purpose::Root, b"b").unwrap();
        port.sign_p256(&other, b"m").unwrap();
    }
}

/// Whoever may use the token knows the next key's name, and may put one there of which he keeps a copy.
#[test]
fn a_key_that_was_brought_into_the_token_is_never_found_again_as_one_that_was_made_there() {
    let faulty = Faulty::new();
    let id = KeyId::of(Purpose::Issuer, b"the next");
    plant(&faulty.token, "imported", &id, "true", "false");
    let before = plain(&faulty.token, "keys", &["holdfast", PIN]);
    let kept = "sensitive=true extractable=false always-sensitive=false never-extractable=false readable=false";
    assert_eq!(before, format!("{id} {kept}\n"), "it looks as if the token kept it");
    let refused = KeyError::Refused(format!("the key {id} may be known outside of the token"));
    let port = faulty.port(PIN, LONG);
    assert_eq!(port.generate(Purpose::Issuer, b"the next"), Err(refused.clone()));
    // Operators may bring a key of their own, and it is used: but not as one that was made here.
    port.sign_p256(&id, b"m").unwrap();
    port.public(&id).unwrap();
    assert_eq!(port.generate(Purpose::Issuer, b"the next"), Err(refused));
    assert_eq!(plain(&faulty.token, "keys", &["holdfast", PIN]), before);
    // It spoils no other, and what is made here is found again.
    let other = port.generate(Purpose::Issuer, b"another").unwrap();
    assert_eq!(faulty.port(PIN, LONG).generate(Purpose::Issuer, b"another"), Ok(other));
    port.destroy(&id).unwrap();
    assert_eq!(port.generate(Purpose::Issuer, b"the next"), Ok(id), "once it is gone, one is made");
}

#[test]
fn two_keys_of_one_id_are_refused_both() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    let id = KeyId::of(Purpose::Root, b"a");
    plant(&faulty.token, "pair", &id, "true", "false");
    port.sign_p256(&id, b"m").unwrap();
    plant(&faulty.token, "pair", &id, "true", "false");
    let port = faulty.port(PIN, LONG);
    let refused = KeyError::Refused(format!("the token holds several keys {id}"));
    assert_eq!(port.sign_p256(&id, b"m"), Err(refused.clone()));
    assert_eq!(port.generate(Purpose::Root, b"a"), Err(refused));
    assert_eq!(objects(faulty.dir.path()).len(), 4);
}

#[test]
fn a_key_that_others_made_is_used_whatever_it_is_called_and_never_destroyed() {
    let faulty = Faulty::new();
    let plant = |kind: &str, name: &str| plain(&faulty.token, kind, &["holdfast", PIN, name, "true", "false"]);
    plant("pair", "0a");
    plant("pair", &"ab".repeat(40));
    plant("labelled", "My own root");
    let others = [
        KeyId::of_others(&[0x0a], b"").unwrap(),
        KeyId::of_others(&[0xab; 40], b"").unwrap(),
        KeyId::of_others(b"", b"My own root").unwrap(),
    ];
    let port = faulty.port(PIN, LONG);
    let ours = port.generate(Purpose::Root, b"a").unwrap();
    let mut all = [&others[..], &[ours]].concat();
    all.sort_unstable();
    assert_eq!(port.list().unwrap(), all);
    // A process that has not looked through the token finds them as well.
    let port = faulty.port(PIN, LONG);
    let mut publics: Vec<_> = all.iter().map(|id| port.public(id).unwrap()).collect();
    publics.sort_unstable();
    publics.dedup();
    assert_eq!(publics.len(), 4, "one was taken for another");
    for id in &others {
        port.sign_p256(id, b"m").unwrap();
        port.destroy(id).unwrap();
        port.sign_p256(id, b"m").unwrap();
    }
    assert_eq!(objects(faulty.dir.path()).len(), 8, "a key of somebody else's is gone");
    // Two of one name are told apart by nothing.
    plant("pair", "0a");
    let several = KeyError::Refused(format!("the token holds several keys {}", others[0]));
    assert_eq!(faulty.port(PIN, LONG).sign_p256(&others[0], b"m"), Err(several));
}
