//! How a cluster of one becomes one of three, and whom it does not take in.

use super::world::{Voter, Voters, waits};
use crate::world::{Daemon, World, eventually};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn three_voters_from_nothing_are_asked_through_any_of_them() {
    let v = Voters::founded(3);
    let ids: BTreeSet<u64> = v.all.iter().map(|voter| voter.id).collect();
    assert_eq!(ids, BTreeSet::from([1, 2, 3]));
    assert_eq!(v.rows().iter().filter(|r| r["leader"] == true).count(), 1);
    // A tool that knows one voter alone, and has to log in, finds the leader by itself: whichever it knows.
    for n in 0..3 {
        v.know_only(n);
        assert_eq!(v.put("shop/through-any", b"value"), n as u64 + 1, "through voter {}", v.all[n].id);
        v.know_only(n);
        assert_eq!(v.version("shop/through-any"), n as u64 + 1);
    }
    v.verifies();
    let log = v.w.ok(&["log", "tail", "-n", "200"]);
    assert_eq!(log.matches("voter.admit").count(), 2, "{log}");
}

#[test]
fn whoever_is_not_admitted_by_its_own_key_becomes_no_voter() {
    let mut v = Voters::founded(1);
    let (mut applicant, id, key) = v.apply();
    let other = holdfast_types::sha256(&[b"another key"]).hex();
    v.w.refused(&["voter", "admit", &id, "--key", &other], 3);
    // Approving it as a machine makes no voter of it.
    assert!(!v.w.cli(&["node", "approve", &id, "--key", &key]).status.success());
    assert_eq!(applicant.state(), "joining");
    assert!(!applicant.state_dir().join("voter").exists(), "it made a disk");
    assert_eq!(v.rows().len(), 1);
    // It goes on with the key that it applied with, without its token.
    applicant.kill();
    applicant.start(&[]);
    assert_eq!(waits(&applicant), (id.clone(), key.clone()));
    v.w.ok(&["voter", "admit", &id, "--key", &key]);
    applicant.becomes("ready");
    assert_eq!(applicant.ask().unwrap().voter_id, 2);
    v.all.push(applicant);
    v.settle();
    v.put("shop/a", b"value");
}

#[test]
fn a_voter_that_is_killed_while_it_is_taken_in_goes_on_where_it_was() {
    let mut v = Voters::founded(1);
    let (mut voter, id, key) = v.apply();
    v.w.ok(&["voter", "admit", &id, "--key", &key]);
    // At once, again and again: before, while and after it makes its disk.
    for _ in 0..4 {
        voter.kill();
        voter.start(&[]);
        let state = eventually("a state", || voter.ask().map(|s| s.state));
        if state == "sealed" {
            voter.unlock_with(&v.w, &v.w.unlock_key);
        }
    }
    eventually("the voter to be open", || {
        let state = voter.state();
        if state == "sealed" {
            voter.unlock_with(&v.w, &v.w.unlock_key);
        }
        (state == "ready").then_some(())
    });
    assert_eq!(voter.ask().unwrap().voter_id, 2);
    v.all.push(voter);
    v.settle();
    assert_eq!(v.rows().len(), 2, "no second number was given");
    v.put("shop/a", b"value");
    v.verifies();
}

#[test]
fn a_voters_token_admits_one_voter_alone() {
    let mut v = Voters::founded(1);
    let token = v.w.token("voter", &[]);
    let vault = format!("127.0.0.1:{}", v.all[0].join);
    let options = ["--join-token-file", token.to_str().unwrap(), "--vault", &vault];
    let mut first = Voter::place(&v.w, "first");
    first.configure("");
    first.start(&options);
    let (id, key) = waits(&first);
    let second = Voter::place(&v.w, "second");
    second.configure("");
    let mut c = second.command();
    c.args(options);
    let mut process = Daemon::spawn(c, v.w.path("second.log"));
    let code = eventually("the second to be refused", || process.exited());
    let told = process.log_text();
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("bad-credential") && told.contains("used up"), "{told}");
    assert!(!second.state_dir().join("voter").exists(), "it made a disk");
    v.w.ok(&["voter", "admit", &id, "--key", &key]);
    first.becomes("ready");
    v.all.push(first);
    v.settle();
    assert_eq!(v.rows().len(), 2);
}

/// A voter whose log is cut short as often as it may be.
fn often(w: &World, name: &str) -> Voter {
    let mut voter = Voter::place(w, name);
    voter.more = "snapshot_every = 100".to_owned();
    voter
}

#[test]
fn voters_that_join_behind_a_snapshot_have_the_whole_log_and_answer_for_it_when_they_lead() {
    let mut v = Voters::founded_at(1, often);
    std::thread::scope(|s| {
        for client in 0..4 {
            let v = &v;
            s.spawn(move || {
                for n in 0..30 {
                    v.put(&format!("shop/s{client}-{n}"), b"value");
                }
            });
        }
    });
    eventually("a snapshot to be taken", || v.all[0].log_text().contains("a snapshot was taken").then_some(()));
    for _ in 0..2 {
        let new = v.add();
        // What lies before the snapshot comes from the others, apart from it.
        eventually("the leaves from before the voter's time", || {
            v.all[new].log_text().contains("leaves of the log from before this voter's time").then_some(())
        });
    }
    v.settle();
    let founder = v.w.json(&["log", "verify"])["entries"].as_u64().unwrap();
    assert!(founder > 120, "{founder} entries");
    // Whoever has been there from the beginning is gone.
    v.kill(0);
    v.know_only(1);
    let (leader, _) = v.leader();
    assert_ne!(leader, 0);
    v.know_only(leader);
    let file = v.w.text("newcomer.hflog");
    let exported = v.w.json(&["log", "export", &file]);
    let verified = v.w.json(&["log", "verify", "--file", &file]);
    assert_eq!((&verified["entries"], &verified["root"]), (&exported["entries"], &exported["root"]));
    assert!(verified["entries"].as_u64().unwrap() >= founder, "{verified}");
    v.verifies();
    let (backup, socket) = (v.w.text("newcomer.hfbackup"), v.all[leader].socket());
    v.w.ok(&["backup", "create", &backup, "--vault-socket", &socket]);
    let whole = v.w.json(&["backup", "verify", &backup, "--key-file", v.recovery_key.to_str().unwrap()]);
    assert_eq!((&whole["ok"], &whole["proven_by"]), (&json!(true), &json!([])));
    v.come_back(0);
    v.settle();
    // Whoever admitted the voters had no recovery key: with it, what each has sealed to it is opened.
    let mut ids: Vec<u64> = v.all.iter().map(|voter| voter.id).collect();
    ids.sort_unstable();
    let sockets = v.sockets();
    let key = v.recovery_key.to_str().unwrap();
    let mut verify = vec!["backup", "verify", backup.as_str()];
    verify.extend(sockets.iter().map(String::as_str));
    let proven = v.w.json(&[&verify[..], &["--key-file", key]].concat());
    assert_eq!(proven["proven_by"], json!(ids));
    assert!(v.w.refused(&verify, 2).contains("without the recovery key"));
}
