//! What only a module of the tests' own can show: how often a PIN is tried, a token that is full, one that logs out.

use super::token::{PIN, alarm, behind_the_shim, found, root_key, start, with_token, words};
use crate::world::{World, eventually, write_key};

/// A root in the token is ordered while it fails with `fault`: what is waited for says `word`, and the root is made once the
/// token is well.
fn a_rotation_waits_out(fault: &str, word: &str) {
    let (w, token) = with_token("", behind_the_shim, "");
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock"]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
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
