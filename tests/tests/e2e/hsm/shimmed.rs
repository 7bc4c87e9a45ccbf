//! What only a module of the tests' own can show: how often a PIN is tried, a token that is full, one that logs out.

use super::token::{PIN, behind_the_shim, found, root_key, start, with_token, words};
use crate::seen::alarm;
use crate::world::{World, eventually, write_key};

/// A root in the token is ordered while it fails with `fault`: what is waited for says `word`, and the root is made once the
/// token is well.
fn a_rotation_waits_out(fault: &str, word: &str) {
    let (w, token) = with_token("", behind_the_shim, "");
    w.found();
    token.fault(fault);
    w.ok(&["root", "rotate", "--hsm", "--detach"]);
    let waits = |w: &World| w.json(&["root", "status"])["waits_for"].as_str().unwrap_or_default().to_owned();
    eventually("the fault to be named", || waits(&w).contains(word).then_some(()));
    assert_eq!(root_key(&w), "software");
    // Nothing else waits.
    w.put_secret("shop/password", b"x", &[]);
    token.fault("");
    eventually("the rotation to go on", || {
        let now = w.json(&["root", "status"]);
        (root_key(&w) == "hsm" && now["phase"] == "stable").then_some(())
    });
    assert_eq!(token.objects(), 2, "one key, however often it was tried");
}

#[test]
fn a_token_that_is_full_is_named_and_used_once_there_is_room() {
    a_rotation_waits_out("C_GenerateKeyPair error 0x31", "full");
}

#[test]
fn a_token_that_logs_out_or_loses_its_session_is_logged_in_anew() {
    a_rotation_waits_out("C_GenerateKeyPair error 0x101", "CKR_USER_NOT_LOGGED_IN");
}

#[test]
fn a_token_that_hangs_in_a_signature_holds_up_the_rotation_alone() {
    a_rotation_waits_out("C_Sign hang", "did not answer in 3 s");
}

#[test]
fn a_pin_that_was_refused_is_not_tried_again_until_the_next_start() {
    let (mut w, token) = with_token("", behind_the_shim, "");
    found(&w, &token);
    w.kill_vault();
    write_key(&token.pin_file(), "wrong-pin-0000");
    let before = token.calls("C_Login");
    start(&mut w, &token);
    w.unlock();
    eventually("the fault to be named", || alarm(&w, "token").filter(|t| t.contains("PIN")));
    // What needs the token, and looks at it, for a while.
    w.ok(&["root", "rotate", "--hsm", "--detach"]);
    w.add_node("eu");
    w.add_node("eu");
    assert_eq!(token.calls("C_Login"), before + 1);
    w.kill_vault();
    write_key(&token.pin_file(), PIN);
    start(&mut w, &token);
    w.unlock();
    eventually("the token to be well again", || (words(&w)[0] == "voter 1: ok").then_some(()));
}

#[test]
fn an_order_is_given_up_while_the_token_cannot_make_the_key() {
    let (w, token) = with_token("", behind_the_shim, "");
    w.found();
    token.fault("C_GenerateKeyPair error 0x31");
    w.ok(&["root", "rotate", "--hsm", "--detach"]);
    let status = || w.json(&["root", "status"]);
    let ordered = eventually("the fault to be named", || {
        let now = status();
        now["waits_for"].as_str()?.contains("full").then_some(now)
    });
    assert_eq!(
        (ordered["target"].as_str(), ordered["trusted"].as_array().unwrap().len()),
        (Some("hsm"), 1),
        "{ordered}"
    );
    w.ok(&["root", "abort", "--detach"]);
    token.fault("");
    let done = status();
    assert_eq!((done["target"].as_str(), done["phase"].as_str()), (Some(""), Some("stable")), "{done}");
    assert_eq!((root_key(&w).as_str(), token.objects()), ("software", 0));
}

#[test]
fn a_dropped_roots_key_that_cannot_be_destroyed_is_destroyed_once_the_token_is_well() {
    let (w, token) = with_token("", behind_the_shim, "");
    found(&w, &token);
    token.fault("C_DestroyObject error 0x30");
    w.ok(&["root", "rotate", "--software", "--detach"]);
    let phase = || w.json(&["root", "status"])["phase"].as_str().unwrap().to_owned();
    eventually("the old root to be dropped", || (phase() == "retiring").then_some(()));
    // There is no way back to a root that is trusted no more, and nothing else waits for its key to go.
    assert!(w.refused(&["root", "abort"], 4).contains("no rotation"));
    w.put_secret("shop/password", b"x", &[]);
    assert_eq!((root_key(&w).as_str(), token.objects()), ("software", 2));
    token.fault("");
    eventually("the key to be destroyed", || (phase() == "stable" && token.objects() == 0).then_some(()));
}
