//! Two of three voters are gone for good: the third one begins a new era with what is on its disk, and nobody else does.

use super::world::Voters;
use crate::pages::{commands, shell};
use crate::world::{World, eventually};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// All voters but the one at `left` are killed, and their disks are gone.
fn lose_all_but(v: &mut Voters, left: usize) {
    for n in (0..v.all.len()).filter(|n| *n != left) {
        v.kill(n);
        fs::remove_dir_all(v.all[n].state_dir()).unwrap();
    }
}

/// The process of the voter at `n` has ended to make room for the next one, which its supervisor starts.
fn start_again(v: &mut Voters, n: usize) {
    let daemon = v.all[n].daemon.as_mut().unwrap();
    assert_eq!(eventually("the survivor's process to end", || daemon.exited()), Some(75));
    v.all[n].start(&[]);
}

fn before_era_2(v: &Voters, n: usize) -> PathBuf {
    v.all[n].state_dir().join("voter.before-era-2")
}

#[test]
fn one_voter_of_three_that_is_left_goes_on_with_everything_and_the_lost_ones_never_return() {
    let mut v = Voters::founded(3);
    v.settle();
    v.w.add_node("eu");
    v.put("shop/a", b"value");
    v.put("shop/b", b"value");
    // The one with the highest number, which is not to be given again.
    let left = 2;
    let (number, socket, key) = (v.all[left].id, v.all[left].socket(), v.w.unlock_key.display().to_string());
    let survivor = ["recover", "--from-survivor", "--vault-socket", socket.as_str(), "--key-file", key.as_str()];
    // While enough are there, nothing is forced.
    assert!(v.w.refused(&survivor, 4).contains("enough voters are up"));
    v.know_only(left);
    v.settle();

    lose_all_but(&mut v, left);
    v.kill(left);
    v.all[left].start(&[]);
    v.all[left].becomes("sealed");
    let unlock = v.w.text("era-2.key");
    let recover = [&survivor[..], &["--unlock-key-out", unlock.as_str()]].concat();
    let shown = v.w.json(&[&recover[..], &["--dry-run"]].concat());
    assert_eq!((&shown["changed"], &shown["era"]), (&Value::Bool(false), &Value::from(2)));
    assert_eq!(shown["found"]["secrets"], "2");
    assert!(shown["found"]["unacknowledged"].as_str().unwrap().parse::<u64>().is_ok(), "{shown}");
    assert_eq!(v.all[left].state(), "recovering", "whoever only looks disturbs nothing");
    assert!(!v.w.path("era-2.key").exists());

    let back = v.w.json(&recover);
    assert_eq!((&back["changed"], &back["voter"]), (&Value::Bool(true), &Value::from(4)));
    assert_eq!(back["era"], 2);
    start_again(&mut v, left);
    v.all[left].becomes("sealed");
    assert!(before_era_2(&v, left).join("slots").exists(), "the disk that was read is kept");
    v.w.unlock_key = v.w.path("era-2.key");
    v.all[left].unlock(&v.w);
    v.all[left].id = v.all[left].ask().unwrap().voter_id;
    assert_eq!(v.all[left].id, 4);
    assert_eq!((v.version("shop/a"), v.version("shop/b")), (1, 1));
    assert_eq!(v.put("shop/a", b"another"), 2);
    v.verifies();
    eventually("the node to follow into the new era", || {
        let all = v.w.json(&["node", "ls"]);
        all["nodes"].as_array()?.iter().any(|n| n["role"] == "node" && n["connected"] == true).then_some(())
    });

    // It is a cluster of one, which takes in others, under numbers that nobody had.
    let kept = v.all.remove(left);
    v.all = vec![kept];
    for number in [5, 6] {
        let new = v.add();
        assert_eq!(v.all[new].id, number);
    }
    v.settle();
    let states: Vec<(u64, String)> =
        v.rows().iter().map(|r| (r["id"].as_u64().unwrap(), r["state"].as_str().unwrap().to_owned())).collect();
    assert!(states.iter().all(|(id, state)| (*id > number) == (state == "ready")), "{states:?}");
    assert_eq!(v.put("shop/a", b"with three"), 3);
}

#[test]
fn a_voter_without_a_cluster_and_one_of_another_cluster_bring_nothing_back() {
    let w = World::empty();
    let socket = w.socket();
    let nobody = ["recover", "--from-survivor", "--vault-socket", socket.as_str()];
    let ours = Voters::alone(&[]);
    // The context is of `ours`; the socket of a vault without a disk, and then of another cluster's.
    let o = ours.w.cli(&nobody);
    assert_eq!(o.status.code(), Some(4), "{}", String::from_utf8_lossy(&o.stderr));
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "uninitialized");
    w.found();
    let o = ours.w.cli(&nobody);
    assert_eq!(o.status.code(), Some(1), "{}", String::from_utf8_lossy(&o.stderr));
    assert!(String::from_utf8_lossy(&o.stderr).contains("this voter belongs to cluster"));
    // A voter that is alone decides alone.
    let alone = ours.all[0].socket();
    let said = ours.w.refused(&["recover", "--from-survivor", "--vault-socket", &alone], 4);
    assert!(said.contains("enough voters are up"), "{said}");
    assert_eq!(ours.all[0].state(), "ready");
}

/// Whoever reads the page and types; the last voter is the one that is left.
struct Reader(Voters);

impl Reader {
    fn follow(&mut self, page: &str) -> String {
        commands(page).iter().map(|line| self.type_in(line)).collect()
    }

    fn type_in(&mut self, line: &str) -> String {
        let v = &mut self.0;
        let left = v.all.len() - 1;
        if line == "systemctl restart holdfast-vault" {
            v.all[left].stop();
            v.all[left].start(&[]);
            v.all[left].becomes("sealed");
            return String::new();
        }
        let line = line.replace("/run/holdfast-vault/vault.sock", &v.all[left].socket());
        let o = shell(&v.w, &line).output().unwrap();
        assert!(o.status.success(), "{line}: {}", String::from_utf8_lossy(&o.stderr));
        if line.contains("recover") && !line.contains("--dry-run") {
            start_again(v, left);
            v.all[left].becomes("sealed");
        }
        String::from_utf8(o.stdout).unwrap()
    }
}

#[test]
fn a_lost_quorum_is_brought_back_as_the_page_says() {
    let mut v = Voters::founded(2);
    v.put("shop/a", b"value");
    v.know_only(1);
    v.settle();
    lose_all_but(&mut v, 1);
    let mut r = Reader(v);
    let said = r.follow("lost-quorum.md");
    assert!(said.contains("not known to be acknowledged") && said.contains("\nok "), "{said}");
    assert_eq!(r.0.version("shop/a"), 1);
    assert!(r.0.w.ok(&["log", "tail", "-n", "50"]).contains("reset"));
}
