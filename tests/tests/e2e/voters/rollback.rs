//! Disks that are not what their voters left: set back, copied, wiped, damaged. Each is named, and none of them votes.

use super::world::{Voter, Voters};
use crate::world::{World, eventually};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Tries to open a voter that may refuse, or end.
fn try_unlock(w: &World, voter: &Voter) {
    let (socket, key) = (voter.socket(), w.unlock_key.to_str().unwrap().to_owned());
    drop(w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "12s"]));
}

#[test]
fn an_old_disk_that_was_put_back_is_found_out_by_the_others_and_never_votes() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let follower = v.follower();
    v.all[follower].stop();
    let (disk, old) = (v.all[follower].state_dir(), v.w.path("old-disk"));
    copy(&disk, &old);
    v.come_back(follower);
    v.settle();
    for _ in 0..5 {
        v.put("shop/a", b"value");
    }
    v.settle();
    // All of it, with the anchor that lies beside it: its own machine cannot know.
    v.kill(follower);
    fs::remove_dir_all(&disk).unwrap();
    fs::rename(&old, &disk).unwrap();
    v.all[follower].start(&[]);
    v.all[follower].becomes("sealed");
    try_unlock(&v.w, &v.all[follower]);
    v.all[follower].becomes("rolled-back");
    let told = v.all[follower].ask().unwrap();
    let known = ["its log was at entry", "it voted in term", "its start", "has booted", "a later process of it"];
    assert!(known.iter().any(|why| told.reason.contains(why)), "nothing says why: {told:?}");
    // Nor after one more start, which would be the newest that anybody has heard.
    v.all[follower].kill();
    v.all[follower].start(&[]);
    v.all[follower].becomes("sealed");
    try_unlock(&v.w, &v.all[follower]);
    v.all[follower].becomes("rolled-back");
    // The rest goes on, and that voter is no help: with one of the others gone there is no quorum.
    assert_eq!(v.put("shop/a", b"value"), 7);
    let (leader, _) = v.leader();
    let other = (0..3).find(|n| *n != leader && *n != follower).unwrap();
    v.kill(other);
    let o = v.w.cli_with(&["secret", "put", "shop/a", "--timeout", "3s"], b"without a quorum");
    assert_eq!(o.status.code(), Some(5), "a disk that was set back made a quorum");
    v.come_back(other);
    // What heals it: out, and in again under another number.
    let number = v.all[follower].id;
    v.w.ok(&["voter", "evict", &number.to_string(), "--yes"]);
    v.all.remove(follower).kill();
    let new = v.add();
    assert_eq!(v.all[new].id, 4);
    v.settle();
    v.verifies();
}

#[test]
fn a_disk_alone_that_was_put_back_is_found_out_by_its_own_machine() {
    let mut v = Voters::founded(1);
    v.put("shop/a", b"value");
    v.all[0].stop();
    let (disk, old) = (v.all[0].state_dir().join("voter"), v.w.path("old-disk"));
    copy(&disk, &old);
    v.come_back(0);
    v.put("shop/a", b"value");
    v.all[0].stop();
    fs::remove_dir_all(&disk).unwrap();
    fs::rename(&old, &disk).unwrap();
    v.all[0].start(&[]);
    try_unlock(&v.w, &v.all[0]);
    assert_ne!(v.all[0].state(), "ready", "a disk that was set back is served from");
    let o = v.w.cli(&["secret", "ls", "--timeout", "2s"]);
    assert_eq!(o.status.code(), Some(5));
    let told = v.all[0].log_text();
    assert!(told.contains("rolled-back") || told.contains("set back"), "{told}");
}

#[test]
fn of_two_processes_with_one_voters_disk_one_is_shut_out() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let follower = v.follower();
    v.all[follower].stop();
    let mut twin = Voter::place(&v.w, "twin");
    copy(&v.all[follower].state_dir(), &twin.state_dir());
    twin.configure("");
    v.come_back(follower);
    v.settle();
    twin.start(&[]);
    twin.becomes("sealed");
    try_unlock(&v.w, &twin);
    let states = || (v.all[follower].state(), twin.state());
    let out = |s: &str| s == "rolled-back";
    eventually("one of the two to be shut out", || {
        let (a, b) = states();
        (out(&a) || out(&b)).then_some(())
    });
    let (a, b) = states();
    assert_ne!(out(&a), out(&b), "both are shut out: {a:?} and {b:?}");
    for _ in 0..3 {
        v.put("shop/a", b"value");
    }
    v.verifies();
}

#[test]
fn a_wiped_voter_does_not_come_back_under_its_old_number() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let follower = v.follower();
    let number = v.all[follower].id;
    v.kill(follower);
    fs::remove_dir_all(v.all[follower].state_dir().join("voter")).unwrap();
    v.all[follower].start(&[]);
    // It has neither a disk nor a token that admits it: whatever it says, it is not that voter.
    v.all[follower].becomes("uninitialized");
    try_unlock(&v.w, &v.all[follower]);
    let told = v.all[follower].ask().unwrap();
    assert_eq!(
        (told.state.as_str(), told.voter_id, told.cluster_id.is_empty()),
        ("uninitialized", 0, true),
        "{told:?}"
    );
    let missed = || v.rows().iter().any(|r| r["id"] == number && r["state"] == "unreachable").then_some(());
    eventually("the others to miss it by its number", missed);
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.w.ok(&["voter", "evict", &number.to_string(), "--yes"]);
    v.all.remove(follower).kill();
    let new = v.add();
    assert!(v.all[new].id > 3, "a number was given again");
    v.settle();
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for e in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        if e.file_type().unwrap().is_dir() { found.extend(files(&e.path())) } else { found.push(e.path()) }
    }
    found.sort();
    found
}

/// One flipped bit in the middle of a file.
fn flip(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_flipped_bit_in_a_voters_file_is_named_or_harmless_and_the_others_go_on() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    let follower = v.follower();
    v.all[follower].stop();
    let (disk, whole) = (v.all[follower].state_dir(), v.w.path("whole"));
    copy(&disk, &whole);
    // The slots, the identity and the largest file of the store; every file, in several places, is tried where the disk is tested.
    let size = |p: &PathBuf| p.metadata().unwrap().len();
    let named = |name: &str| files(&disk).into_iter().find(|p| p.ends_with(name));
    let store = files(&disk).into_iter().max_by_key(size);
    let hurt: Vec<PathBuf> = [named("slots"), named("ident"), store].into_iter().flatten().collect();
    assert!(hurt.len() >= 2, "{:?}", files(&disk));
    for path in hurt {
        flip(&path);
        v.all[follower].start(&[]);
        try_unlock(&v.w, &v.all[follower]);
        let state = v.all[follower].state();
        let own = path.ends_with("slots") || path.ends_with("ident");
        assert!(!own || state != "ready", "{} was altered, and is used", path.display());
        // What it does not notice it does not use; whatever it says, it says no wrong thing of the cluster.
        if state != "ready" {
            let told = v.all[follower].log_text() + &v.all[follower].ask().map(|s| s.reason).unwrap_or_default();
            let words = ["corrupt", "bad-key", "wrong-cluster", "wrong-voter", "not-initialized", "rolled-back"];
            assert!(words.iter().any(|w| told.contains(w)), "{}: {state:?}, and no reason: {told}", path.display());
        }
        v.put("shop/a", b"value");
        v.verifies();
        v.kill(follower);
        // Back to what it was; one that was opened since is told apart from this copy by its boots.
        fs::remove_dir_all(&disk).unwrap();
        copy(&whole, &disk);
    }
    let before = v.version("shop/a");
    assert_eq!(v.put("shop/a", b"value"), before + 1);
}
