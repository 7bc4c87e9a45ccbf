//! A rotation among several voters, whose leader dies in the midst of it. Each single point: `hsm/killed.rs`.

use super::{phase, roots, signer, stable, trusted};
use crate::seen::connected;
use crate::voters::world::Voters;
use crate::world::eventually;
use rustix::process::Signal;

#[test]
fn a_rotation_goes_on_under_the_next_leader_when_one_is_killed_in_the_midst() {
    let mut v = Voters::founded(3);
    v.w.add_node("eu");
    let before = signer(&v.w);
    // A node that answers nothing keeps it from ending.
    v.w.agents[0].signal(Signal::STOP);
    v.w.ok(&["root", "rotate", "--detach"]);
    let new = phase(&v.w, "reissuing")["signer"].as_str().unwrap().to_owned();
    assert_ne!(new, before);
    let (leader, term) = v.leader();
    v.kill(leader);
    let next = eventually("another voter to lead", || Some(v.leader()).filter(|(n, _)| *n != leader));
    assert!(next.1 > term);
    let midway = roots(&v.w);
    assert_eq!((midway["phase"].as_str(), midway["signer"].as_str()), (Some("reissuing"), Some(new.as_str())));
    assert_eq!(trusted(&midway), 2);
    v.w.agents[0].signal(Signal::CONT);
    // The one that was killed may have a certificate under the old root: it is waited for.
    v.come_back(leader);
    v.settle();
    let done = stable(&v.w);
    assert_eq!(done["signer"], new.as_str());
    assert_eq!((trusted(&done), done["trusted"][0]["identities"].as_u64()), (1, Some(4)), "{done}");
    connected(&v.w);
    v.verifies();
    // A voter that starts has nothing but its disk to believe the others by.
    let n = v.follower();
    v.kill(n);
    v.come_back(n);
    v.settle();
}
