//! `init --hsm`: the root's key is made in the token, and nowhere else.

use super::token::{found, fresh, issuers, root_key, start, with_token, words};
use crate::seen::alarm;
use crate::world::eventually;

#[test]
fn a_cluster_is_founded_with_its_root_in_a_token_and_outlives_a_restart() {
    let (mut w, token) = with_token("issuer = \"15s\"", fresh, "");
    assert_eq!(token.objects(), 0);
    found(&w, &token);
    assert_eq!(root_key(&w), "hsm");
    assert_eq!(token.objects(), 2, "the root's key pair, and nothing else");
    assert_eq!(words(&w)[0], "voter 1: ok");
    assert_eq!(alarm(&w, "token"), None);
    w.add_node("eu");
    w.kill_vault();
    start(&mut w, &token);
    w.unlock();
    // Each issuer is signed by the root, so the key was found again by its id.
    let before = issuers(&w);
    eventually("the token to sign another issuer", || (issuers(&w) > before).then_some(()));
    assert_eq!(token.objects(), 2);
}

#[test]
fn a_token_that_is_asked_for_twice_by_one_founding_makes_one_key() {
    let (mut w, token) = with_token("", fresh, "");
    // The first answer is lost with the vault, at whatever point; the same `init` goes on.
    let out =
        w.beside(&["init", "--vault-socket", &w.socket(), "--autolock", "--hsm", &token.uri(), "--json"], "init.out");
    eventually("the token to have a key", || (token.objects() > 0).then_some(()));
    w.kill_vault();
    drop(out);
    start(&mut w, &token);
    found(&w, &token);
    assert_eq!((root_key(&w).as_str(), token.objects()), ("hsm", 2));
}

#[test]
fn an_init_that_names_another_token_or_none_that_is_there_founds_nothing() {
    let (w, token) = with_token("", fresh, "");
    let init = |uri: &str| w.refused(&["init", "--vault-socket", &w.socket(), "--autolock", "--hsm", uri], 2);
    let other = token.uri().replace("token=holdfast", "token=other");
    assert!(init(&other).contains("another one"));
    // The founding that was begun is gone on with by the token that it named: another context begins anew.
    for (n, uri) in ["pkcs11:", "file:/x", "pkcs11:token=holdfast?pin-value=1"].iter().enumerate() {
        let context = format!("c{n}");
        let said =
            w.refused(&["init", "--context", &context, "--vault-socket", &w.socket(), "--autolock", "--hsm", uri], 2);
        assert!(said.contains("URI"), "{uri}: {said}");
    }
    assert_eq!(token.objects(), 0);
    let status = w.json(&["status", "--vault-socket", &w.socket()]);
    assert_eq!(status["state"], "uninitialized");
}
