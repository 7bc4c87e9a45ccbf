//! Among several voters, the one that leads reaches the token that a root's key is in.

use super::token::{Token, root_key, signal_worker, words};
use crate::roots::signer;
use crate::voters::world::{Voter, Voters};
use crate::world::{World, eventually};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;

fn conf(w: &World, name: &str) -> PathBuf {
    w.path(&format!("softhsm-{name}.conf"))
}

/// A voter with the token that all share, by a SoftHSM configuration of its own.
fn place(w: &World, name: &str) -> Voter {
    let dir = w.path("hsm");
    let token = if dir.exists() { Token::at(dir) } else { Token::new(dir) };
    fs::copy(token.conf(), conf(w, name)).unwrap();
    let mut voter = Voter::place(w, name);
    voter.more = token.section("");
    voter.through = vec!["env".to_owned(), format!("SOFTHSM2_CONF={}", conf(w, name).display())];
    voter
}

#[test]
fn a_leader_that_lost_its_token_hands_over_to_a_voter_that_has_one() {
    let v = Voters::founded_at(3, place);
    v.w.ok(&["root", "rotate", "--hsm"]);
    assert_eq!(root_key(&v.w), "hsm");
    let all_ok =
        || words(&v.w).as_array().is_some_and(|a| a.len() == 3 && a.iter().all(|s| s.to_string().ends_with(": ok\"")));
    eventually("every voter to reach the token", || all_ok().then_some(()));
    let (leader, _) = v.leader();
    let name = if leader == 0 { "vault".to_owned() } else { format!("vault{}", leader + 1) };
    let empty = v.w.path("no-tokens");
    fs::create_dir(&empty).unwrap();
    fs::write(conf(&v.w, &name), format!("directories.tokendir = {}\n", empty.display())).unwrap();
    signal_worker(v.all[leader].pid(), Signal::KILL);
    eventually("another voter to lead", || (v.leader().0 != leader).then_some(()));
    v.settle();
    // What needs the root's key goes on there.
    let before = signer(&v.w);
    v.w.ok(&["root", "rotate", "--hsm"]);
    assert_eq!((root_key(&v.w).as_str(), signer(&v.w) == before), ("hsm", false));
}
