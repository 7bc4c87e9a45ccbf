//! A voter that is out is out: it is not heard, makes no quorum, and reads nothing of what came after.

use super::world::Voters;
use crate::seen::alarm;
use crate::world::{eventually, within};
use std::time::Duration;

#[test]
fn an_evicted_voter_is_not_heard_makes_no_quorum_and_reads_nothing_that_came_after() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"before");
    let out = v.follower();
    let number = v.all[out].id;
    v.w.ok(&["voter", "evict", &number.to_string(), "--yes"]);
    // The keyring follows: what is sealed from now on is sealed for the others alone.
    within(Duration::from_secs(60), "the next term of the keyring", || {
        (v.w.json(&["keyring", "status"])["term"].as_u64() >= Some(2)).then_some(())
    });
    assert_eq!(v.put("shop/a", b"after"), 2);
    assert_eq!(v.put("shop/b", b"after"), 1);
    let members = || v.rows().iter().filter(|r| r["state"] == "ready").map(|r| r["id"].clone()).collect::<Vec<_>>();
    eventually("two voters to be left", || (members().len() == 2).then_some(()));
    assert!(!members().iter().any(|id| *id == number));
    // Started anew with its own disk, its key and everything that it ever had, it takes no part.
    let Voters { all, w, .. } = &mut v;
    all[out].kill();
    all[out].start(&[]);
    let (socket, key) = (all[out].socket(), w.unlock_key.display().to_string());
    drop(w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "12s"]));
    assert_ne!(all[out].state(), "ready");
    let before = v.leader();
    v.know_only(out);
    let o = v.w.cli(&["secret", "ls", "--timeout", "3s"]);
    assert!(!o.status.success(), "an evicted voter answered: {}", String::from_utf8_lossy(&o.stdout));
    let any = (0..3).find(|n| *n != out).unwrap();
    v.know_only(any);
    assert_eq!(v.leader(), before, "it disturbed the others");
    let other = (0..3).find(|n| *n != before.0 && *n != out).unwrap();
    v.kill(other);
    let o = v.w.cli_with(&["secret", "put", "shop/a", "--timeout", "3s"], b"without a quorum");
    assert_eq!(o.status.code(), Some(5), "an evicted voter made a quorum");
    v.come_back(other);
    let log = v.w.ok(&["log", "tail", "-n", "200"]);
    assert!(log.contains("voter.evict") && log.contains("keyring.add"), "{log}");
    v.verifies();
}

#[test]
fn after_a_compromised_voter_the_vault_replaces_its_own_keys_at_once_and_the_secrets_are_named() {
    let v = Voters::founded(3);
    v.put("shop/a", b"one");
    v.put("shop/a", b"two");
    let out = v.follower();
    let number = v.all[out].id;
    let of_kind = |v: &Voters, kind: &str| {
        let all = v.w.json(&["log", "tail", "-n", "1000"]);
        let found = all["entries"].as_array().unwrap().iter().filter(|e| e["kind"] == kind);
        found.cloned().collect::<Vec<_>>()
    };
    let issuers = of_kind(&v, "issuer.create").len();
    let told = v.w.json(&["voter", "evict", &number.to_string(), "--compromised", "--yes"]);
    assert_eq!(
        (told["secrets"][0]["secret"].as_str(), told["secrets"][0]["version"].as_u64()),
        (Some("shop/a"), Some(2))
    );
    assert_eq!(told["todo"][0], "holdfast unlock-key rotate --compromised");
    // What is left in the alarm is what operators have to do.
    within(Duration::from_secs(60), "the vault's own keys to be replaced", || {
        alarm(&v.w, "compromised")?.contains(&format!("voter {number} (unlock key)")).then_some(())
    });
    assert_eq!(of_kind(&v, "issuer.create").len(), issuers + 1);
    let dropped = of_kind(&v, "stk.rotate").into_iter().filter(|e| e["fields"]["exposed"].is_string()).count();
    assert_eq!(dropped, 1, "one new key, and the exposed one is in the Bundle no more");
    // What the new keys sign is believed.
    assert_eq!(v.put("shop/a", b"three"), 3);
    v.w.ok(&["log", "verify"]);
    v.verifies();
}

#[test]
fn of_two_voters_the_follower_can_be_evicted_and_the_other_goes_on_alone() {
    let mut v = Voters::founded(2);
    assert_eq!(v.put("shop/a", b"value"), 1);
    for version in [2, 3] {
        let out = v.follower();
        let number = v.all[out].id;
        v.w.ok(&["voter", "evict", &number.to_string(), "--yes"]);
        // Both had to agree that one of them goes.
        assert_eq!(v.put("shop/a", b"value"), version);
        v.all[out].becomes("rolled-back");
        let told = v.all[out].ask().unwrap();
        assert!(told.reason.contains("evicted"), "{told:?}");
        drop(v.all.remove(out));
        v.add();
    }
    assert_eq!(v.put("shop/a", b"value"), 4);
    v.verifies();
}

#[test]
fn a_voter_that_was_evicted_while_it_was_away_says_that_the_others_refuse_it() {
    let mut v = Voters::founded(3);
    let out = v.follower();
    v.kill(out);
    v.w.ok(&["voter", "evict", &v.all[out].id.to_string(), "--yes"]);
    assert_eq!(v.put("shop/a", b"value"), 1);
    v.all[out].start(&[]);
    v.all[out].becomes("sealed");
    let (socket, key) = (v.all[out].socket(), v.w.unlock_key.display().to_string());
    drop(v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "3s"]));
    eventually("it to say why it waits", || {
        let told = v.all[out].ask()?;
        (told.state == "recovering" && told.reason.contains("refuse this voter")).then_some(())
    });
    v.verifies();
}

#[test]
fn no_voter_is_evicted_while_those_who_stay_are_too_few() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let (leader, _) = v.leader();
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let (gone, stays) = (others[0], others[1]);
    v.kill(gone);
    let (lost, healthy) = (v.all[gone].id, v.all[stays].id);
    eventually("the one that is gone to be missed", || {
        v.rows().iter().any(|r| r["id"] == lost && r["state"] == "unreachable").then_some(())
    });
    let o = v.w.cli(&["voter", "evict", &healthy.to_string(), "--yes"]);
    let said = String::from_utf8_lossy(&o.stderr);
    assert!(!o.status.success() && said.contains(&format!("{lost} would have to answer")), "{said}");
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.w.ok(&["voter", "evict", &lost.to_string(), "--yes"]);
    assert_eq!(v.put("shop/a", b"value"), 3);
    v.verifies();
}

#[test]
fn a_leader_can_be_evicted_and_the_last_voter_cannot() {
    let mut v = Voters::founded(2);
    v.put("shop/a", b"value");
    let (leader, _) = v.leader();
    let number = v.all[leader].id;
    v.w.ok(&["voter", "evict", &number.to_string(), "--yes"]);
    let gone = v.all.remove(leader);
    eventually("the other to lead alone", || {
        let rows = v.rows();
        let ready: Vec<_> = rows.iter().filter(|r| r["state"] == "ready").collect();
        (ready.len() == 1 && ready[0]["leader"] == true && ready[0]["id"] == v.all[0].id).then_some(())
    });
    drop(gone);
    assert_eq!(v.put("shop/a", b"value"), 2);
    let o = v.w.cli(&["voter", "evict", &v.all[0].id.to_string(), "--yes"]);
    assert!(!o.status.success(), "the last voter was evicted");
    assert_eq!(v.put("shop/a", b"value"), 3);
    v.verifies();
}
