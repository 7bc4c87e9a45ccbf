//! A rotation that is given up, or overtaken by another one, while a node that answers nothing keeps it from ending.

use super::{connected, phase, roots, signer, stable, trusted};
use crate::world::{World, eventually};
use rustix::process::Signal;

/// A cluster whose node lives and answers nothing.
fn held() -> World {
    let w = World::everything();
    connected(&w);
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
