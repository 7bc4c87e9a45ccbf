//! A rotation that is given up, or overtaken by another one, while a node that answers nothing keeps it from ending.

use super::given::{CA, made_by_openssl, name_of_roots};
use super::{phase, roots, signer, stable, trusted};
use crate::seen::connected;
use crate::world::{World, eventually};
use rustix::process::Signal;

/// A cluster whose node lives and answers nothing.
fn held() -> World {
    let w = World::everything();
    w.agents[0].signal(Signal::STOP);
    w
}

#[test]
fn a_rotation_that_is_given_up_while_certificates_are_reissued_leads_back_to_the_old_root() {
    let w = held();
    let before = signer(&w);
    w.ok(&["root", "rotate", "--detach"]);
    let midway = phase(&w, "reissuing");
    assert_ne!(midway["signer"], before.as_str());
    assert_eq!(trusted(&midway), 2);
    w.ok(&["root", "abort", "--detach"]);
    eventually("the old root to sign again", || (signer(&w) == before).then_some(()));
    w.agents[0].signal(Signal::CONT);
    let done = stable(&w);
    assert_eq!((done["signer"].as_str(), trusted(&done)), (Some(before.as_str()), 1), "{done}");
    connected(&w);
    // Where nothing is under way there is nothing to give up.
    assert!(w.refused(&["root", "abort"], 4).contains("no rotation"));
}

#[test]
fn a_second_rotation_overtakes_the_first() {
    let w = held();
    let first = signer(&w);
    w.ok(&["root", "rotate", "--detach"]);
    let second = phase(&w, "reissuing")["signer"].as_str().unwrap().to_owned();
    w.ok(&["root", "rotate", "--detach"]);
    let third = eventually("the third root to sign", || {
        let now = signer(&w);
        (now != first && now != second).then_some(now)
    });
    assert!(trusted(&roots(&w)) >= 2, "the node's own root was dropped while it lives");
    w.agents[0].signal(Signal::CONT);
    let done = stable(&w);
    assert_eq!((done["signer"].as_str(), trusted(&done)), (Some(third.as_str()), 1), "{done}");
    connected(&w);
}

#[test]
fn a_rotation_that_is_given_up_while_the_new_root_is_distributed_leaves_nothing_of_it() {
    let w = World::everything();
    let before = signer(&w);
    // It does not sign before its own key has signed an issuer: it is trusted, and no more.
    let (cert, _) = made_by_openssl(w.dir.path(), "offline", &name_of_roots(&w), CA);
    let asked = w.json(&["root", "rotate", "--ca-cert", &cert, "--offline"]);
    assert_eq!((asked["phase"].as_str(), trusted(&asked)), (Some("distributing"), 2), "{asked}");
    assert_eq!(asked["signer"], before.as_str());
    w.ok(&["root", "abort", "--detach"]);
    let done = stable(&w);
    assert_eq!((done["signer"].as_str(), trusted(&done)), (Some(before.as_str()), 1), "{done}");
    assert!(w.refused(&["root", "csr"], 4).contains("no offline root"), "it is still to sign");
    connected(&w);
    // The next one goes as if there had been none.
    let done = w.json(&["root", "rotate"]);
    assert_eq!((trusted(&done), done["signer"] == before.as_str()), (1, false), "{done}");
}
