//! Attempts to open a sealed vault with what is no key of it: so many a minute, and each is told once it is open.

use super::voters::rotate::boxes_of;
use super::voters::world::local;
use super::world::{World, eventually};
use holdfast_transport::failure::Failure;
use holdfast_types::ClusterId;
use holdfast_wire::boxes;
use holdfast_wire::v1;
use serde_json::Value;
use std::fs;

/// One more attempt over the socket, with a disk key that was guessed: the word that it is refused with.
pub fn guess(socket: &str, guessed: &[u8]) -> String {
    let slots = boxes_of(socket);
    let cluster = ClusterId::from_slice(&slots.cluster_id).unwrap();
    let aad = boxes::open_slot_aad(slots.voter_id, slots.dk_gen);
    let context = boxes::Context { purpose: boxes::OPEN_SLOT, cluster: &cluster, aad: &aad };
    let request = v1::OpenSlotRequest {
        disk_key_box: boxes::seal(&slots.answer_pk, &context, None, guessed, [7; 32]).unwrap(),
        dk_gen: slots.dk_gen,
        slot: "unlock(1)".to_owned(),
        others: Vec::new(),
    };
    let refused = local(socket, async |mut c| c.open_slot(request).await).expect_err("a guess opened it");
    Failure::from(refused).code.into_owned()
}

fn state(w: &World) -> String {
    w.json(&["status", "--vault-socket", &w.socket()])["state"].as_str().unwrap().to_owned()
}

/// A new process, sealed.
fn sealed(w: &mut World) {
    w.kill_vault();
    w.start_vault();
    eventually("the vault to say that it is sealed", || (state(w) == "sealed").then_some(()));
}

#[test]
fn of_six_attempts_within_a_minute_the_last_is_refused_whatever_its_key() {
    let mut w = World::founded();
    let socket = w.socket();
    sealed(&mut w);
    for guessed in 1..=5 {
        assert_eq!(guess(&socket, &[guessed; 32]), "bad-key");
    }
    assert_eq!(guess(&socket, &[6; 32]), "too-many-attempts");
    let key = w.unlock_key.to_str().unwrap().to_owned();
    let o = w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--json"]);
    let said = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.code() == Some(3) && said.contains("too-many-attempts"), "{said}");
    assert_eq!(state(&w), "sealed");
}

#[test]
fn attempts_that_failed_are_in_the_log_once_the_vault_is_open_with_their_number() {
    let mut w = World::founded();
    let socket = w.socket();
    sealed(&mut w);
    for guessed in 1..=4 {
        assert_eq!(guess(&socket, &[guessed; 32]), "bad-key");
    }
    // The fifth is the right one.
    w.unlock();
    let denied = eventually("the attempts to be in the log", || {
        let log = w.json(&["log", "tail", "-n", "50"]);
        let entries = log["entries"].as_array()?.clone();
        entries.into_iter().find(|e| e["kind"] == "unlock.deny")
    });
    assert_eq!((&denied["subject"], &denied["fields"]["count"]), (&"vault/1".into(), &"4".into()), "{denied}");
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

/// The entries of attempts that failed, once there are so many.
fn denied(w: &World, count: usize) -> Vec<Value> {
    eventually("the attempts to be in the log", || {
        let log = w.json(&["log", "tail", "-n", "100"]);
        let of = |e: &&Value| e["kind"] == "unlock.deny";
        let all: Vec<Value> = log["entries"].as_array()?.iter().filter(of).cloned().collect();
        (all.len() == count).then_some(all)
    })
}

#[test]
fn attempts_that_failed_are_told_by_a_voter_that_was_started_again_and_a_full_disk_locks_nobody_out() {
    let mut w = World::founded();
    let socket = w.socket();
    sealed(&mut w);
    for guessed in 1..=2 {
        assert_eq!(guess(&socket, &[guessed; 32]), "bad-key");
    }
    sealed(&mut w);
    let kept = w.path("vault").join("voter").join("attempts");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "2\n");
    assert_eq!(guess(&socket, &[3; 32]), "bad-key");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "3\n");
    w.unlock();
    assert_eq!(denied(&w, 1)[0]["fields"]["count"], "3");
    eventually("what was told to be forgotten", || (!kept.exists()).then_some(()));

    // Where nothing can be written, attempts are refused and told as ever, and the key opens.
    sealed(&mut w);
    fs::create_dir_all(kept.join("in the way")).unwrap();
    assert_eq!(guess(&socket, &[4; 32]), "bad-key");
    w.unlock();
    assert_eq!(denied(&w, 2)[1]["fields"]["count"], "1");
}
