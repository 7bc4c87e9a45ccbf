//! The root moves into the token by a rotation, and out of it, under nodes that notice nothing.

use super::token::{behind_the_shim, found, fresh, issuers, root_key, start, with_token};
use crate::roots::served::others_believe;
use crate::seen::{alarm, connected};
use crate::world::eventually;
use holdfast_transport::tls::Alpn;
use std::path::Path;
use std::time::{Duration, Instant};

/// Well within the 3 s that a call of the token may take here.
const AT_ONCE: Duration = Duration::from_secs(2);

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
    found(&w, &token);
    assert_eq!(token.objects(), 4, "a root and an issuer");
    let before = issuers(&w);
    eventually("another issuer", || (issuers(&w) > before).then_some(()));
    assert!(token.objects() >= 6);
    w.token("node", &[]);
    // What it signed is believed by others too, by the token's root alone.
    let roots = w.text("roots.pem");
    w.ok(&["root", "export", "--out", &roots]);
    others_believe(w.join, Alpn::Join, Path::new(&roots)).unwrap();
}

#[test]
fn an_issuer_in_a_token_that_hangs_holds_up_new_certificates_and_nothing_else() {
    let (mut w, token) = with_token("", behind_the_shim, "issuer = true");
    found(&w, &token);
    w.add_node("eu");
    w.put_secret("shop/password", b"x", &[]);
    token.fault("C_Sign hang");
    let before = token.calls("C_Sign");
    w.start_joining("eu");
    for n in 1..=2 {
        // Another leaf is waited for at this moment.
        eventually("a signature to hang", || (token.calls("C_Sign") >= before + n).then_some(()));
        let begun = Instant::now();
        w.put_secret("shop/password", b"x", &[]);
        assert!(begun.elapsed() < AT_ONCE, "it waited for the token: {:?}", begun.elapsed());
        let all = w.json(&["node", "ls"]);
        let up = all["nodes"].as_array().unwrap().iter().filter(|n| n["connected"] == true).count();
        assert_eq!(up, 1, "the node's stream ended, or a leaf was given: {all}");
    }
    eventually("the fault to be named", || alarm(&w, "token").filter(|t| t.contains("did not answer in 3 s")));
    token.fault("");
    eventually("the other node to join", || {
        let all = w.json(&["node", "ls"]);
        let up = all["nodes"].as_array()?.iter().filter(|n| n["connected"] == true).count();
        (up == 2).then_some(())
    });
    eventually("the token to be well again", || alarm(&w, "token").is_none().then_some(()));
}
