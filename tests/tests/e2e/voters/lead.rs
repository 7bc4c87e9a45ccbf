//! Who leads: what happens when the leader goes, by death or by order, and that nobody else moves it.

use super::world::Voters;
use crate::world::eventually;
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn another_leads_after_one_was_killed_and_nothing_acknowledged_is_gone() {
    let mut v = Voters::founded(3);
    for round in 1..=3_u64 {
        assert_eq!(v.put("shop/kept", b"value"), round * 2 - 1);
        let (leader, term) = v.leader();
        v.kill(leader);
        assert_eq!(v.put("shop/kept", b"value"), round * 2, "what was acknowledged is gone");
        let (now, next) = v.leader();
        assert!(now != leader && next > term, "voter {now} leads in term {next} after {leader} in {term}");
        v.come_back(leader);
        v.settle();
    }
    v.verifies();
}

#[test]
fn a_leader_that_is_told_to_end_hands_its_lead_over_first() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let (leader, term) = v.leader();
    v.all[leader].stop();
    // Its follower was called to lead: no election was lost, and nobody waited for one.
    let (now, next) = v.leader();
    assert_ne!(now, leader);
    assert_eq!(next, term + 1, "{}", v.all[leader].log_text());
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.come_back(leader);
    v.settle();
    assert_eq!(v.leader(), (now, next));
}

#[test]
fn a_leader_that_is_sealed_hands_its_lead_over_first() {
    let mut v = Voters::founded(3);
    let (leader, term) = v.leader();
    v.seal(leader);
    let (now, next) = v.leader();
    assert!(now != leader && next == term + 1, "voter {now} in term {next} after {leader} in {term}");
    assert_eq!(v.put("shop/a", b"value"), 1);
    let Voters { all, w, .. } = &v;
    all[leader].unlock(w);
    v.settle();
    assert_eq!(v.leader(), (now, next));
}

#[test]
fn a_voter_that_returns_disturbs_nobody() {
    let mut v = Voters::founded(3);
    let before = v.leader();
    let follower = v.follower();
    v.put("shop/a", b"value");
    // Killed, and back with a log that lags.
    v.kill(follower);
    v.put("shop/a", b"value");
    v.come_back(follower);
    v.settle();
    assert_eq!(v.leader(), before, "a follower that was killed");
    // Stopped for longer than any election timeout, and back as if nothing had been.
    v.all[follower].signal(Signal::STOP);
    let stopped = Instant::now();
    eventually("several election timeouts", || (stopped.elapsed() > Duration::from_secs(3)).then_some(()));
    v.put("shop/a", b"value");
    v.all[follower].signal(Signal::CONT);
    v.settle();
    v.put("shop/a", b"value");
    assert_eq!(v.leader(), before, "a follower that stood still");
    v.verifies();
}

#[test]
fn a_leader_that_stood_still_follows_whoever_leads_now() {
    let v = Voters::founded(3);
    v.put("shop/a", b"value");
    let (leader, term) = v.leader();
    v.all[leader].signal(Signal::STOP);
    assert_eq!(v.put("shop/a", b"value"), 2);
    let (now, next) = v.leader();
    assert!(now != leader && next > term);
    v.all[leader].signal(Signal::CONT);
    // It answers nothing from before: whoever asks it alone gets the present version.
    v.know_only(leader);
    assert_eq!(v.version("shop/a"), 2);
    v.settle();
    assert_eq!(v.put("shop/a", b"value"), 3);
    v.verifies();
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_with_it_everything_goes_on() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let (leader, _) = v.leader();
    let followers: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    followers.iter().for_each(|n| v.kill(*n));
    let o = v.w.cli_with(&["secret", "put", "shop/a", "--timeout", "3s"], b"alone");
    assert_eq!(o.status.code(), Some(5), "{}", String::from_utf8_lossy(&o.stderr));
    let o = v.w.cli(&["secret", "ls", "--timeout", "2s"]);
    assert_eq!(o.status.code(), Some(5), "a voter alone answered a question of which it cannot know the answer");
    v.come_back(followers[0]);
    eventually("a quorum", || v.w.cli(&["secret", "ls", "--timeout", "2s"]).status.success().then_some(()));
    // The write that was not acknowledged happened or did not; the next one follows it.
    let version = v.put("shop/a", b"value");
    assert!(version == 2 || version == 3, "version {version}");
    v.come_back(followers[1]);
    v.settle();
    v.verifies();
}

#[test]
fn five_voters_go_on_without_two() {
    let mut v = Voters::founded(5);
    v.put("shop/a", b"value");
    let (leader, _) = v.leader();
    let other = (leader + 1) % 5;
    v.kill(leader);
    v.kill(other);
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.come_back(leader);
    v.come_back(other);
    v.settle();
    v.verifies();
}
