//! A key that is made in the token, and whose entry never comes: it is found again, and no second one is left there.

use super::token::{behind_the_shim, found, issuers, start, with_token};
use crate::world::eventually;

#[test]
fn an_issuers_key_that_was_made_before_a_crash_is_found_again_in_the_token_and_no_other_is_left_there() {
    let (mut w, token) = with_token("issuer = \"24s\"", behind_the_shim, "issuer = true");
    found(&w, &token);
    assert_eq!(token.objects(), 4, "a root and an issuer");
    let before = issuers(&w);
    // The next issuer's key is made, and the root does not sign for it.
    token.fault("C_Sign hang");
    eventually("the next issuer's key", || (token.objects() == 6).then_some(()));
    w.kill_vault();
    token.fault("");
    start(&mut w, &token);
    w.unlock();
    let now = eventually("the next issuer", || Some(issuers(&w)).filter(|n| *n > before));
    assert_eq!((now, token.objects()), (before + 1, 6), "a key of no issuer is left in the token");
}
