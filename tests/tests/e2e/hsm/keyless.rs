//! A token that stays away for long: what waits for it is named in time, what does not goes on, and all is well once it is back.

use super::token::{found, fresh, issuers, signal_worker, with_token};
use crate::seen::alarm;
use crate::world::eventually;
use rustix::process::Signal;

#[test]
fn while_the_token_is_away_what_waits_is_warned_of_before_the_issuer_ends_and_no_more_once_it_is_back() {
    let (mut w, token) = with_token("issuer = \"30s\"", fresh, "");
    found(&w, &token);
    let (before, term) = (issuers(&w), w.json(&["keyring", "status"])["term"].clone());
    assert_eq!((alarm(&w, "issuer-ends"), alarm(&w, "keyring-late")), (None, None));
    token.pull(true);
    signal_worker(w.vault.as_ref().unwrap().pid(), Signal::KILL);
    // A term that is due, whatever its age.
    w.ok(&["keyring", "rotate", "--detach"]);
    let named = |text: &String| text.contains("no token that fits");
    let late = eventually("the keyring to be late, and why", || alarm(&w, "keyring-late").filter(named));
    assert!(late.contains("waits for the key of the root that signs ("), "{late}");

    // Half of the issuer's life is over. There is another half, in which certificates are given on.
    let ends = eventually("the issuer to be warned of", || alarm(&w, "issuer-ends"));
    assert!(ends.contains("no issuer follows the one in use, which ends "), "{ends}");
    w.add_node("eu");
    assert_eq!(issuers(&w), before, "an issuer was made without the root's key");
    assert_eq!(w.json(&["keyring", "status"])["term"], term, "a term was made without the root's key");

    token.pull(false);
    eventually("another issuer, and no alarm", || {
        (issuers(&w) > before && alarm(&w, "issuer-ends").is_none()).then_some(())
    });
    eventually("the next term, and no alarm", || {
        let now = w.json(&["keyring", "status"])["term"].clone();
        (now != term && alarm(&w, "keyring-late").is_none()).then_some(())
    });
    eventually("the token to be well", || alarm(&w, "token").is_none().then_some(()));
}
