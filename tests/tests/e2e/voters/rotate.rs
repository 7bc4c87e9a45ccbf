//! Every key replaced while the cluster works: who slept through it is opened, who stole the old one opens nothing.

use super::world::{Voters, local};
use crate::attempts::guess;
use crate::world::{eventually, within, write_key};
use holdfast_wire::boxes;
use holdfast_wire::token::parse_unlock;
use holdfast_wire::v1;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `unlock-key rotate` to a key in a file of this name.
fn rotate(v: &Voters, name: &str, more: &[&str]) -> PathBuf {
    let new = v.w.path(name);
    let args = ["unlock-key", "rotate", "--key-out", new.to_str().unwrap(), "--timeout", "60s"];
    v.w.ok(&[&args, more].concat());
    new
}

/// What `unlock-key status` says.
fn unlock_key(v: &Voters) -> Value {
    v.w.json(&["unlock-key", "status"])
}

/// The slots of a sealed voter, as anybody who is root on its machine gets them.
pub fn boxes_of(socket: &str) -> v1::SlotBoxes {
    local(socket, async |mut c| c.get_slot_boxes(v1::Ack {}).await).unwrap()
}

/// What a key opens of these slots: the disk key, if any.
pub fn open(slots: &v1::SlotBoxes, key: &Path) -> Option<Vec<u8>> {
    let secret = parse_unlock(&std::fs::read_to_string(key).unwrap()).unwrap();
    let (sk, _) = boxes::derive_keypair(secret.expose());
    let cluster = holdfast_types::ClusterId::from_slice(&slots.cluster_id).unwrap();
    slots.slots.iter().filter(|s| s.kind == "unlock").find_map(|slot| {
        // A box of before there were two generations bears none of its own.
        let generation = if slot.dk_gen == 0 { slots.dk_gen } else { slot.dk_gen };
        let aad = boxes::slot_aad(slots.voter_id, generation, slot.epoch);
        let context = boxes::Context { purpose: "unlock-slot", cluster: &cluster, aad: &aad };
        boxes::open(&sk, &context, None, &slot.r#box).ok().map(|key| key.expose().to_vec())
    })
}

#[test]
fn a_voter_that_was_down_throughout_a_rotation_is_opened_with_the_new_key() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let asleep = v.follower();
    v.kill(asleep);
    let old = v.w.unlock_key.clone();
    let new = rotate(&v, "new.key", &["--key-file", old.to_str().unwrap()]);
    assert_eq!(unlock_key(&v)["epoch"], 2);
    v.put("shop/a", b"value");
    // Whoever has the new key needs no other: the chain leads from it to the one that this voter knows.
    v.all[asleep].start(&[]);
    v.all[asleep].becomes("sealed");
    assert!(open(&boxes_of(&v.all[asleep].socket()), &new).is_none(), "its disk was not down throughout");
    v.all[asleep].unlock_with(&v.w, &new);
    v.all[asleep].becomes("ready");
    v.settle();
    // It caught up: with the slots as well.
    let slots = || {
        let rows = v.rows();
        rows.iter().all(|r| r["unlock_epoch"] == 2).then_some(())
    };
    eventually("every voter to have the new slot alone", slots);
    for n in 0..3 {
        v.seal(n);
        let slots = boxes_of(&v.all[n].socket());
        assert!(open(&slots, &old).is_none(), "the old key opens voter {}", v.all[n].id);
        v.all[n].unlock_with(&v.w, &new);
        v.all[n].becomes("ready");
        v.settle();
    }
    assert_eq!(v.put("shop/a", b"value"), 3);
    v.verifies();
}

#[test]
fn after_a_compromised_rotation_the_old_key_opens_no_new_disk() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let old = v.w.unlock_key.clone();
    v.seal(0);
    let stolen = open(&boxes_of(&v.all[0].socket()), &old).expect("the key of now opens the disk of now");
    v.all[0].unlock(&v.w);
    v.settle();
    let new = rotate(&v, "new.key", &["--compromised"]);
    eventually("every voter to have replaced its disk key", || {
        v.rows().iter().all(|r| r["disk_key_order"].as_u64() >= Some(1) && r["unlock_epoch"] == 2).then_some(())
    });
    for n in 0..3 {
        v.seal(n);
        let slots = boxes_of(&v.all[n].socket());
        assert!(slots.chain.is_empty(), "a chain leads from the new key to the one that was stolen");
        assert!(open(&slots, &old).is_none(), "the old key opens voter {}", v.all[n].id);
        let now = open(&slots, &new).expect("the new key opens it");
        assert_ne!(now, stolen, "the disk key is still the one that the thief has");
        let (socket, key) = (v.all[n].socket(), old.to_str().unwrap());
        v.w.refused(&["unlock", "--vault-socket", &socket, "--key-file", key], 3);
        if n == 0 {
            // The disk key that was stolen is no key of this disk.
            let refused = guess(&socket, &stolen);
            assert_eq!((refused.as_str(), v.all[n].state().as_str()), ("bad-key", "sealed"));
        }
        v.all[n].unlock_with(&v.w, &new);
        v.all[n].becomes("ready");
        v.settle();
    }
    assert_eq!(v.put("shop/a", b"value"), 2);
}

#[test]
fn a_rotation_that_is_cut_short_anywhere_leaves_every_voter_a_key_and_can_be_ended() {
    let mut v = Voters::founded(3);
    let old = v.w.unlock_key.clone();
    let new = v.w.path("new.key");
    // The tool is killed after so many milliseconds; what it had written down is what its user has.
    for ms in [150, 300, 600] {
        let (key, out) = (old.to_str().unwrap().to_owned(), new.to_str().unwrap().to_owned());
        let mut tool = v.w.beside(&["unlock-key", "rotate", "--key-file", &key, "--key-out", &out], "rotate.log");
        std::thread::park_timeout(Duration::from_millis(ms));
        let ended = tool.exited().is_some();
        if !ended {
            tool.kill();
        }
        if new.exists() {
            break;
        }
    }
    // All voters are killed as well, and come back: with the key from before or the one that was shown.
    for n in 0..3 {
        v.kill(n);
        v.all[n].start(&[]);
        v.all[n].becomes("sealed");
    }
    let keys: Vec<&Path> = [&old, &new].into_iter().map(PathBuf::as_path).filter(|k| k.exists()).collect();
    for voter in &v.all {
        let opened = keys.iter().any(|key| {
            let socket = voter.socket();
            // Open and waiting for the others counts.
            drop(v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", key.to_str().unwrap()]));
            voter.state() != "sealed"
        });
        assert!(opened, "voter {} is opened by neither key", voter.id);
    }
    v.settle();
    // And it is brought to its end, whatever it had come to.
    let status = unlock_key(&v);
    let pending = status["pending"].as_u64().is_some_and(|p| p > 0);
    let newest = if pending {
        v.w.ok(&["unlock-key", "rotate", "--resume", "--key-file", new.to_str().unwrap(), "--timeout", "60s"]);
        new
    } else if status["epoch"] == 1 {
        rotate(&v, "again.key", &["--key-file", old.to_str().unwrap()])
    } else {
        new
    };
    assert_eq!(unlock_key(&v)["epoch"], 2);
    v.seal(0);
    v.all[0].unlock_with(&v.w, &newest);
    v.all[0].becomes("ready");
}

#[test]
fn a_rotation_without_a_quorum_ends_nothing_and_calls_no_key_disposable() {
    let mut v = Voters::founded(3);
    let (leader, _) = v.leader();
    for n in (0..3).filter(|n| *n != leader) {
        v.kill(n);
    }
    let (old, new) = (v.w.unlock_key.clone(), v.w.path("new.key"));
    let args = ["unlock-key", "rotate", "--key-file", old.to_str().unwrap(), "--key-out", new.to_str().unwrap()];
    let o = v.w.cli(&[args.as_slice(), &["--timeout", "4s"]].concat());
    let told = String::from_utf8_lossy(&o.stdout).into_owned() + &String::from_utf8_lossy(&o.stderr);
    assert!(!o.status.success() && !told.contains("disposable"), "{told}");
    for n in (0..3).filter(|n| *n != leader) {
        v.come_back(n);
    }
    v.settle();
    v.seal(leader);
    v.all[leader].unlock_with(&v.w, &old);
    v.all[leader].becomes("ready");
}

#[test]
fn a_new_term_of_the_keyring_takes_everything_over_and_the_old_one_ends() {
    let mut v = Voters::founded(3);
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    for n in 0..20 {
        v.put(&format!("shop/s{n}"), b"value");
    }
    v.w.ok(&["keyring", "rotate", "--timeout", "60s"]);
    let rest = || {
        let status = v.w.json(&["keyring", "status"]);
        let over = status["term"] == 2 && status["older"].as_array().is_some_and(Vec::is_empty);
        over.then_some(())
    };
    // The node's own keys hold the old term until it has renewed them.
    within(Duration::from_secs(90), "the old term to end", rest);
    v.rows().iter().for_each(|r| assert_eq!(r["keyring_term"], 2, "{r}"));
    // What was sealed under it is read under the next: by a task, and by voters that come back.
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    let hash = holdfast_types::sha256(&[b"value"]).hex();
    eventually("the task to read its secret", || {
        v.w.ok(&["service", "logs", "shop/web"]).contains(&hash).then_some(())
    });
    for n in 0..3 {
        v.kill(n);
        v.come_back(n);
        v.settle();
    }
    assert_eq!(v.put("shop/s0", b"value"), 2);
    let log = v.w.ok(&["log", "tail", "-n", "500"]);
    assert!(log.contains("keyring.add") && log.contains("keyring.destroy"), "{log}");
    v.verifies();
}

#[test]
fn a_new_recovery_key_opens_what_the_old_one_does_not_any_more() {
    let mut v = Voters::founded(3);
    let new = v.w.path("new-recovery.key");
    v.w.ok(&["recovery-key", "rotate", "--key-out", new.to_str().unwrap(), "--timeout", "60s"]);
    eventually("every voter to have the new slot", || {
        v.rows().iter().all(|r| r["recovery_version"] == 2).then_some(())
    });
    v.seal(0);
    let (socket, old) = (v.all[0].socket(), v.recovery_key.clone());
    v.w.refused(&["unlock", "--vault-socket", &socket, "--key-file", old.to_str().unwrap()], 3);
    v.all[0].unlock_with(&v.w, &new);
    v.all[0].becomes("ready");
}

#[test]
fn a_stolen_copy_of_a_disk_is_opened_by_the_key_of_its_time_and_never_votes() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let follower = v.follower();
    v.all[follower].stop();
    let copy = v.w.path("copy");
    let from = v.all[follower].state_dir();
    assert!(Command::new("cp").arg("-a").args([&from, &copy]).status().unwrap().success());
    v.come_back(follower);
    v.settle();
    let old = v.w.unlock_key.clone();
    let kept = v.w.path("old.key");
    write_key(&kept, &std::fs::read_to_string(&old).unwrap());
    rotate(&v, "new.key", &["--compromised"]);
    eventually("every voter to have replaced its disk key", || {
        v.rows().iter().all(|r| r["disk_key_order"].as_u64() >= Some(1)).then_some(())
    });
    // The copy in the place of the disk, as a thief with a network cable would have it.
    v.kill(follower);
    std::fs::rename(&from, v.w.path("aside")).unwrap();
    std::fs::rename(&copy, &from).unwrap();
    v.all[follower].start(&[]);
    v.all[follower].becomes("sealed");
    let socket = v.all[follower].socket();
    // It is an old disk: whether it opens or not, it takes no part.
    drop(v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", kept.to_str().unwrap(), "--timeout", "8s"]));
    eventually("the copy to be found out", || (v.all[follower].state() == "rolled-back").then_some(()));
    v.put("shop/a", b"value");
}
