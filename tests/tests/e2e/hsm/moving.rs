//! The root moves into the token by a rotation, and out of it, under nodes that notice nothing.

use super::token::{fresh, issuers, root_key, start, with_token};
use crate::seen::connected;
use crate::world::eventually;

#[test]
fn the_root_moves_into_the_token_and_out_of_it_by_rotations() {
    let (mut w, token) = with_token("", fresh, "");
    w.found();
    w.add_node("eu");
    assert_eq!((root_key(&w).as_str(), token.objects()), ("software", 0));
    w.ok(&["root", "rotate", "--hsm"]);
    assert_eq!((root_key(&w).as_str(), token.objects()), ("hsm", 2));
    // The key is found again by a new process.
    w.kill_vault();
    start(&mut w, &token);
    w.unlock();
    w.ok(&["root", "rotate", "--software"]);
    assert_eq!(root_key(&w), "software");
    eventually("the key in the token to be destroyed", || (token.objects() == 0).then_some(()));
    connected(&w);
}

#[test]
fn issuers_are_made_in_the_token_where_that_is_configured() {
    let (w, token) = with_token("issuer = \"15s\"", fresh, "issuer = true");
    super::token::found(&w, &token);
    assert_eq!(token.objects(), 4, "a root and an issuer");
    let before = issuers(&w);
    eventually("another issuer", || (issuers(&w) > before).then_some(()));
    assert!(token.objects() >= 6);
    w.token("node", &[]);
}
