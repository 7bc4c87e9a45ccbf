//! Restarts under load: clients, agents and orchestrators follow the leader by themselves.

use super::world::{Voter, Voters};
use crate::beside::Stop;
use crate::seen::shown;
use crate::shims::assert_running;
use crate::world::{World, eventually, free_port};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A voter under which nodes renew every few seconds.
fn hasty(w: &World, name: &str) -> Voter {
    let mut voter = Voter::place(w, name);
    voter.lives = "node = \"18s\"";
    voter
}

/// Requests of one kind: how many were answered.
type Answered = AtomicU64;

/// Stores values, one after the other.
fn puts(w: &World, over: &AtomicBool, name: &str, done: &Answered) {
    while !over.load(Ordering::Relaxed) {
        // No word of patience: what the tool does by itself has to do.
        w.put_secret(name, b"value", &[]);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes join tokens and revokes them: their ids.
fn tokens(w: &World, over: &AtomicBool, done: &Answered) -> BTreeSet<String> {
    let mut made = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        let id = w.json(&["token", "create", "--role", "node"])["id"].as_str().unwrap().to_owned();
        w.ok(&["token", "revoke", &id]);
        assert!(made.insert(id), "a token was made twice");
        done.fetch_add(1, Ordering::Relaxed);
    }
    made
}

/// Reads who is there, and counts the new certificates of the node.
fn renewals(w: &World, over: &AtomicBool, done: &Answered) {
    let mut seen = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        let machine = shown(w, "node");
        assert_eq!(machine["state"], "ready", "{machine}");
        // The first one is none that was renewed.
        if seen.insert(machine["serial"].as_str().unwrap().to_owned()) && seen.len() > 1 {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn all_voters_are_restarted_one_by_one_and_no_put_token_or_renewal_fails() {
    let mut v = Voters::founded_at(3, hasty);
    v.w.node_lost_after = "30s";
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    let over = AtomicBool::new(false);
    let names = ["puts", "puts of another", "tokens", "renewals of the node"];
    let done: [Answered; 4] = Default::default();
    let Voters { all, w, .. } = &mut v;
    let w: &World = w;
    let made = std::thread::scope(|s| {
        let (over, done) = (&over, &done);
        for (name, done) in ["shop/load0", "shop/load1"].into_iter().zip(done) {
            s.spawn(move || puts(w, over, name, done));
        }
        let made = s.spawn(move || tokens(w, over, &done[2]));
        s.spawn(move || renewals(w, over, &done[3]));
        // Ends the load also if this stops.
        let end = Stop(over);
        for voter in all.iter_mut() {
            let before: Vec<u64> = done.iter().map(|d| d.load(Ordering::Relaxed)).collect();
            voter.stop();
            voter.come_back(w);
            for ((name, done), before) in names.iter().zip(done).zip(before) {
                eventually(&format!("{name} to get on"), || (done.load(Ordering::Relaxed) > before).then_some(()));
            }
        }
        drop(end);
        made.join().unwrap()
    });
    v.settle();
    // Each acknowledged write is there, once.
    for (n, done) in done.iter().take(2).enumerate() {
        assert_eq!(v.version(&format!("shop/load{n}")), done.load(Ordering::Relaxed));
    }
    let listed = v.w.json(&["token", "ls"])["tokens"].as_array().cloned().unwrap();
    let revoked = |id: &String| listed.iter().any(|t| t["id"] == id.as_str() && t["revoked"] == true);
    assert!(made.iter().all(revoked), "{} tokens were made and revoked", made.len());
    let unknown: Vec<_> =
        listed.iter().filter(|t| t["revoked"] == true && !made.contains(t["id"].as_str().unwrap())).collect();
    assert!(unknown.is_empty(), "nobody was told of {unknown:?}");
    // A renewal that was asked for again is the same renewal, and no second holder of the key.
    let log = v.w.ok(&["log", "tail", "-n", "5000"]);
    for odd in ["identity.fork", " evidence "] {
        assert!(!log.contains(odd), "{odd}");
    }
    v.verifies();
}

#[test]
fn tasks_outlive_their_leader_and_a_deployment_right_after_it_works() {
    let mut v = Voters::founded(3);
    // As it is where nobody says otherwise: a node has to find the next leader, too.
    v.w.node_lost_after = "30s";
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    let before = v.w.running("shop/web")[0]["id"].clone();
    let (leader, _) = v.leader();
    v.kill(leader);
    // At once: whoever does not follow the next leader by itself fails here.
    v.w.ok(&["service", "scale", "shop/web=2", "--timeout", "30s"]);
    eventually("two tasks", || (v.w.running("shop/web").len() == 2).then_some(()));
    let now = v.w.running("shop/web");
    assert!(now.iter().any(|t| t["id"] == before), "the task that ran was replaced");
    // And back, by order this time.
    v.come_back(leader);
    v.settle();
    let (leader, _) = v.leader();
    v.all[leader].stop();
    v.w.ok(&["service", "scale", "shop/web=3", "--timeout", "30s"]);
    eventually("three tasks", || (v.w.running("shop/web").len() == 3).then_some(()));
    assert!(v.w.running("shop/web").iter().any(|t| t["id"] == before), "the task that ran was replaced");
    assert_running(&v.w, 3);
    v.come_back(leader);
    v.verifies();
}

#[test]
fn a_voter_that_comes_back_elsewhere_after_another_was_elected_is_found() {
    let mut v = Voters::founded(3);
    let (leader, term) = v.leader();
    let away = v.follower();
    v.kill(away);
    // The third is called to lead, and its disk knows nothing of that.
    v.all[leader].stop();
    v.come_back(leader);
    assert!(v.leader().1 > term);
    v.all[away].peer = free_port();
    v.all[away].configure("");
    v.come_back(away);
    v.settle();
    assert_eq!(v.put("shop/a", b"value"), 1);
    // Without one of the others nothing is committed but with it.
    v.kill(leader);
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.verifies();
}

#[test]
fn nodes_and_orchestrators_that_start_while_a_follower_is_all_they_know_find_the_leader() {
    let mut v = Voters::founded(3);
    let follower = v.follower();
    v.w.join = v.all[follower].join;
    v.w.service = v.all[follower].service;
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    assert_running(&v.w, 1);
}

#[test]
fn every_grant_of_a_storm_of_leader_changes_is_proven_and_its_node_believes_the_proof() {
    let mut v = Voters::founded(3);
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    let (over, scaled) = (AtomicBool::new(false), AtomicU64::new(0));
    let Voters { all, w, .. } = &mut v;
    let w: &World = w;
    let leader = |all: &[super::world::Voter]| {
        eventually("a leader", || {
            let status = w.json(&["status", "--timeout", "30s"]);
            let row = status["voters"].as_array()?.iter().find(|r| r["leader"] == true)?["id"].as_u64()?;
            all.iter().position(|voter| voter.id == row)
        })
    };
    std::thread::scope(|s| {
        // Up and down again: each time up is work that has to be granted anew.
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for wanted in ["shop/web=3", "shop/web=1"] {
                    w.ok(&["service", "scale", wanted, "--timeout", "60s"]);
                    scaled.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let _end = Stop(&over);
        for change in 0..5 {
            let n = leader(all.as_slice());
            if change % 2 == 0 {
                all[n].kill()
            } else {
                all[n].stop()
            }
            all[n].come_back(w);
        }
        let (so_far, enough) = (scaled.load(Ordering::Relaxed), 2);
        eventually("enough to be scaled, and some after the storm", || {
            let now = scaled.load(Ordering::Relaxed);
            (now >= enough && now > so_far).then_some(())
        });
    });
    v.w.ok(&["service", "scale", "shop/web=3", "--timeout", "60s"]);
    eventually("three tasks", || (v.w.running("shop/web").len() == 3).then_some(()));
    let grants = v.w.json(&["grant", "ls", "--namespace", "shop", "--service", "web", "--all"]);
    let ids: Vec<&str> = grants["grants"].as_array().unwrap().iter().filter_map(|g| g["id"].as_str()).collect();
    assert!(ids.len() >= 4, "only {} grants were made", ids.len());
    for id in ids {
        v.w.ok(&["grant", "verify", id]);
    }
    // The node looks at each proof, too: what it does not believe it tells.
    let log = v.w.ok(&["log", "tail", "-n", "1000"]);
    assert!(!log.lines().any(|line| line.contains(" evidence ")), "{log}");
    assert_running(&v.w, 3);
    v.verifies();
}
