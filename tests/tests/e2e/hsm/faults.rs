//! A token that hangs, crashes, is taken out or refuses its PIN: each fault is named, stops root operations alone, and is over
//! without a restart of the vault.

use super::token::{PIN, found, fresh, root_key, signal_worker, start, with_token, words};
use crate::seen::alarm;
use crate::world::{eventually, write_key};
use rustix::process::Signal;

#[test]
fn a_token_that_hangs_or_crashes_stops_root_operations_alone_and_recovers_by_itself() {
    let (mut w, token) = with_token("", fresh, "");
    found(&w, &token);
    let vault = w.vault.as_ref().unwrap().pid();
    // Its process is stopped, as by a module that hangs: the next look ends it at its deadline, and the one after gets another.
    signal_worker(vault, Signal::STOP);
    eventually("the fault to be named", || {
        let text = alarm(&w, "token")?;
        text.contains("did not answer in 3 s").then_some(())
    });
    // Certificates are given on.
    w.add_node("eu");
    eventually("the token to be well again", || (words(&w)[0] == "voter 1: ok").then_some(()));
    signal_worker(vault, Signal::KILL);
    w.add_node("eu");
    eventually("the token to be well again", || (words(&w)[0] == "voter 1: ok").then_some(()));
    assert_eq!((w.vault.as_ref().unwrap().pid(), alarm(&w, "token")), (vault, None), "without a restart");
}

#[test]
fn a_token_that_is_taken_out_is_named_and_what_waited_for_it_is_done_once_it_is_back() {
    let (w, token) = with_token("", fresh, "");
    found(&w, &token);
    token.pull(true);
    signal_worker(w.vault.as_ref().unwrap().pid(), Signal::KILL);
    let text = eventually("the fault to be named", || alarm(&w, "token"));
    assert!(text.starts_with("voter 1: ") && text.contains("there is no token that fits"), "{text}");
    let before = w.json(&["root", "status"])["signer"].clone();
    w.ok(&["root", "rotate", "--hsm", "--detach"]);
    w.put_secret("shop/password", b"x", &[]);
    assert_eq!(w.json(&["root", "status"])["signer"], before, "a root was made without its token");
    token.pull(false);
    eventually("the token to be well again", || (words(&w)[0] == "voter 1: ok").then_some(()));
    eventually("the rotation to go on", || {
        let now = w.json(&["root", "status"]);
        (now["signer"] != before && now["phase"] == "stable").then_some(())
    });
    assert_eq!((root_key(&w).as_str(), token.objects()), ("hsm", 2), "the old key is destroyed");
}

#[test]
fn a_wrong_pin_is_named_tried_once_and_corrected_at_the_next_start() {
    let (mut w, token) = with_token("", fresh, "");
    found(&w, &token);
    w.kill_vault();
    write_key(&token.pin_file(), "wrong-pin-0000");
    start(&mut w, &token);
    w.unlock();
    let text = eventually("the fault to be named", || alarm(&w, "token").filter(|t| t.contains("PIN")));
    assert!(!text.contains("wrong-pin-0000"), "{text}");
    // What needs a root is refused by name, and what does not goes on.
    w.add_node("eu");
    assert_eq!(root_key(&w), "hsm");
    w.kill_vault();
    write_key(&token.pin_file(), PIN);
    start(&mut w, &token);
    w.unlock();
    eventually("the token to be well again", || (words(&w)[0] == "voter 1: ok").then_some(()));
    let log = w.vault.as_ref().unwrap().log_text();
    assert!(!log.contains("wrong-pin-0000") && !log.contains(PIN), "a PIN is in the log");
}

#[test]
fn a_vault_without_its_pin_works_on_and_says_what_is_missing() {
    let (mut w, token) = with_token("", fresh, "");
    found(&w, &token);
    w.kill_vault();
    std::fs::remove_file(token.pin_file()).unwrap();
    start(&mut w, &token);
    w.unlock();
    let text = eventually("the fault to be named", || alarm(&w, "token"));
    assert!(text.contains("there is no PIN"), "{text}");
    w.add_node("eu");
}
