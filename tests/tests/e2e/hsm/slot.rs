//! A voter that opens its own disk by its token.

use super::token::{Token, found, fresh, start, with_token};
use crate::world::{World, eventually};

fn state(w: &World) -> (String, String) {
    let status = w.json(&["status", "--vault-socket", &w.socket()]);
    let text = |of: &str| status[of].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// A founded cluster whose voter has a slot of its token.
fn opens_itself() -> (World, Token) {
    let (w, token) = with_token("", fresh, "unlock = true");
    found(&w, &token);
    eventually("the disk to have a slot of the token", || {
        w.vault.as_ref().unwrap().log_text().contains("opens by its token from now on").then_some(())
    });
    (w, token)
}

#[test]
fn a_voter_opens_itself_by_its_token_as_soon_as_that_is_there() {
    let (mut w, token) = opens_itself();
    w.kill_vault();
    start(&mut w, &token);
    eventually("the voter to open itself", || (state(&w).0 == "ready").then_some(()));
    w.kill_vault();
    token.pull(true);
    start(&mut w, &token);
    let sealed = eventually("the voter to be sealed", || {
        let now = w.json(&["status", "--vault-socket", &w.socket()]);
        (now["state"] == "sealed").then_some(now)
    });
    assert!(sealed["voters"][0]["slots"].as_array().unwrap().iter().any(|s| s == "hsm"), "{sealed}");
    let reason = eventually("the reason to be said", || Some(state(&w).1).filter(|r| r.contains("token")));
    assert!(reason.starts_with("the disk key is not here: "), "{reason}");
    token.pull(false);
    eventually("the voter to open itself", || (state(&w).0 == "ready").then_some(()));
    let log = w.json(&["log", "tail", "-n", "200"]);
    let opened = |e: &&serde_json::Value| e["kind"] == "unlock.open";
    assert!(log["entries"].as_array().unwrap().iter().filter(opened).any(|e| e.to_string().contains("hsm")), "{log}");
}

#[test]
fn a_voter_whose_token_is_away_is_opened_by_its_operators_all_the_same() {
    let (mut w, token) = opens_itself();
    w.kill_vault();
    token.pull(true);
    start(&mut w, &token);
    w.unlock();
    assert_eq!(state(&w).0, "ready");
}

#[test]
fn a_disk_without_its_token_and_a_token_without_its_disk_open_nothing() {
    let (mut w, token) = opens_itself();
    let other = Token::new(w.path("other-hsm"));
    w.kill_vault();
    // The same label and PIN: what is missing is the key.
    start(&mut w, &other);
    let reason = eventually("the reason to be said", || Some(state(&w).1).filter(|r| r.contains("token")));
    assert_eq!((state(&w).0.as_str(), other.objects()), ("sealed", 0), "{reason}");
    w.kill_vault();
    start(&mut w, &token);
    eventually("the voter to open itself", || (state(&w).0 == "ready").then_some(()));
}
