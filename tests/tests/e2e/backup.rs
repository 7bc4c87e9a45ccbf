//! Backups of real vaults: made while they run, verified, and a cluster brought back from one on an empty machine.

use super::shims::shims;
use super::world::{World, eventually, write_key};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A founded vault, with its recovery key in a file.
pub fn founded() -> (World, PathBuf) {
    let w = World::empty();
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock"]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    let recovery = w.path("recovery.key");
    write_key(&recovery, init["recovery_keys"][0].as_str().unwrap());
    (w, recovery)
}

pub fn nodes(w: &World) -> Vec<(String, String)> {
    let all = w.json(&["node", "ls"]);
    let word = |n: &Value, key: &str| n[key].as_str().unwrap().to_owned();
    let mut found: Vec<_> =
        all["nodes"].as_array().unwrap().iter().map(|n| (word(n, "id"), word(n, "state"))).collect();
    found.sort();
    found
}

/// The machine burns: its vault is gone, and an empty one is in its place.
pub fn burn(w: &mut World) {
    w.kill_vault();
    fs::rename(w.path("vault"), w.path("vault-burnt")).unwrap();
    w.start_vault();
}

#[test]
fn a_cluster_comes_back_from_its_backup_on_an_empty_machine_and_what_was_removed_stays_removed() {
    let (mut w, recovery) = founded();
    w.put_secret("shop/db", b"a value of the shop", &[]);
    w.add_node("eu");
    w.add_node("us");
    let gone = nodes(&w)[0].0.clone();
    w.ok(&["node", "rm", &gone]);
    let before = (nodes(&w), w.json(&["secret", "ls"]));
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    let made = w.json(&["backup", "create", &file, "--vault-socket", &socket]);
    let key = recovery.to_str().unwrap();
    let checked = w.json(&["backup", "verify", &file, "--key-file", key]);
    assert_eq!((&checked["ok"], &checked["entries"]), (&Value::Bool(true), &made["entries"]));
    assert_eq!(checked["anchored"], true);

    burn(&mut w);
    let (unlock, out) = (w.text("new-unlock.key"), "--unlock-key-out");
    let recover = ["recover", "--backup", &file, "--key-file", key, "--vault-socket", &socket, out, &unlock];
    fs::write(&unlock, "another key").unwrap();
    for more in [vec![], vec!["--dry-run"]] {
        assert!(w.refused(&[&recover[..], &more[..]].concat(), 2).contains("exists already"));
    }
    fs::remove_file(&unlock).unwrap();
    let shown = w.json(&[&recover[..], &["--dry-run"]].concat());
    assert_eq!((&shown["changed"], &shown["era"]), (&Value::Bool(false), &Value::from(2)));
    assert_eq!(shown["found"]["secrets"], "1");
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "uninitialized");
    assert!(!w.path("new-unlock.key").exists() && !w.path("vault/voter").exists());

    let back = w.json(&recover);
    assert_eq!((&back["changed"], &back["voter"]), (&Value::Bool(true), &Value::from(2)));
    assert_eq!((nodes(&w), w.json(&["secret", "ls"])), before);
    assert!(nodes(&w).contains(&(gone, "removed".to_owned())));
    w.ok(&["log", "verify"]);
    let entries = w.json(&["log", "tail", "-n", "1000"]);
    let kinds: Vec<&str> = entries["entries"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(kinds.contains(&"backup.create") && kinds.contains(&"reset"), "{kinds:?}");

    // What whoever has the backup could read is encrypted anew, under a term that is in no backup.
    eventually("everything to be under the term of the new era", || {
        let keyring = w.json(&["keyring", "status"]);
        (keyring["term"] == 2 && keyring["left"] == 0).then_some(())
    });
    // It takes changes, also after it was sealed and opened with its new unlock key.
    w.put_secret("shop/new", b"another", &[]);
    w.kill_vault();
    w.start_vault();
    w.ok(&["unlock", "--vault-socket", &socket, "--key-file", &unlock]);
    let all = eventually("the secrets", || w.json(&["secret", "ls"])["secrets"].as_array().cloned());
    assert_eq!(all.len(), 2);
    assert!(w.refused(&recover[..7], 4).contains("already"), "a voter with a cluster is left alone");
}

#[test]
fn a_backup_comes_back_by_shares_of_a_rotated_recovery_key_and_the_needed_key_is_named() {
    let (mut w, first) = founded();
    let key = w.text("recovery.share");
    let split = ["--shares", "3", "--threshold", "2", "--key-out", &key];
    w.json(&[&["recovery-key", "rotate"][..], &split].concat());
    let in_force = w.json(&["recovery-key", "status"]);
    w.put_secret("shop/db", b"a value of the shop", &[]);
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    let secrets = w.json(&["secret", "ls"]);
    let share = |n: u8| format!("{key}.{n}");
    let (one, two, three) = (share(1), share(2), share(3));
    // Without a key it says which one it is; with too few shares or the key of before too.
    let verify = ["backup", "verify", &file];
    let shown = w.json(&verify);
    assert_eq!((&shown["opened"], &shown["recovery_key"]["charter_version"]), (&Value::Bool(false), &Value::from(2)));
    for field in ["charter_version", "public", "threshold", "shares", "share_digests"] {
        assert_eq!(shown["recovery_key"][field], in_force[field], "{field}");
    }
    let public = in_force["public"].as_str().unwrap();
    let refused = w.refused(&[&verify[..], &["--key-file", first.to_str().unwrap()]].concat(), 3);
    assert!(refused.contains(public) && refused.contains("charter 2"), "{refused}");
    let opened = w.json(&[&verify[..], &["--share-file", &three, "--share-file", &one]].concat());
    assert_eq!(opened["opened"], true);

    burn(&mut w);
    let recover = ["recover", "--backup", &file, "--vault-socket", &socket, "--unlock-key-out"];
    let unlock = w.text("new-unlock.key");
    let recover = [&recover[..], &[unlock.as_str()]].concat();
    let out = w.cli(&[&recover[..], &["--share-file", &two, "--json"]].concat());
    let refused: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(refused["error"]["code"], "too-few-shares");
    assert_eq!(refused["error"]["details"]["recovery_key"], shown["recovery_key"]);
    let both = [&recover[..], &["--share-file", &two, "--share-file", &three]].concat();
    let plan = w.json(&[&both[..], &["--dry-run"]].concat());
    assert_eq!((&plan["changed"], &plan["recovery_key"]), (&Value::Bool(false), &shown["recovery_key"]));
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "uninitialized");
    assert_eq!(w.json(&both)["changed"], true);
    assert_eq!(w.json(&["secret", "ls"]), secrets);
    // The same shares open the new voter, which is sealed at every start.
    w.kill_vault();
    w.start_vault();
    w.ok(&["unlock", "--vault-socket", &socket, "--share-file", &one, "--share-file", &two]);
    assert_eq!(
        eventually("the secrets", || w.json(&["secret", "ls"]).as_object().cloned())["secrets"],
        secrets["secrets"]
    );
}

/// How many of this role are connected.
fn connected(w: &World, role: &str) -> usize {
    let all = w.json(&["node", "ls"]);
    let up = |n: &&Value| n["role"] == role && n["connected"] == true;
    all["nodes"].as_array().unwrap().iter().filter(up).count()
}

#[test]
fn a_node_and_its_task_outlive_the_vault_and_follow_it_into_its_new_era_and_a_removed_node_does_not() {
    let (mut w, recovery) = founded();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    assert_eq!(w.running("shop/web").len(), 1);
    let stays: Vec<String> = nodes(&w).into_iter().map(|(id, _)| id).collect();
    w.add_node("eu");
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    let before = shims(&w, 0);
    assert_eq!(before.len(), 1);
    // Removed after the backup, which does not know of it.
    let gone = nodes(&w).into_iter().map(|(id, _)| id).find(|id| !stays.contains(id)).unwrap();
    w.ok(&["node", "rm", &gone]);
    w.orchestrator.as_mut().unwrap().kill();
    // Another operator's machine, as far as the era goes: it hears of nothing.
    let elsewhere = w.path("elsewhere");
    let copied = Command::new("cp").arg("-a").args([w.path("home"), elsewhere.clone()]).status().unwrap();
    assert!(copied.success());

    burn(&mut w);
    let key = recovery.to_str().unwrap();
    let recover = ["recover", "--backup", &file, "--key-file", key, "--vault-socket", &socket];
    w.ok(&[&recover[..], &["--removed", gone.as_str()]].concat());
    eventually("the node to follow", || (connected(&w, "node") == 1).then_some(()));
    assert_eq!(shims(&w, 0), before, "its task runs on under the lease of the era before");
    // The orchestrator follows as well: it is given a lease, and work is granted in the new era.
    w.start_orchestrator();
    w.ok(&["service", "scale", "shop/web=2"]);
    eventually("work of the new era", || (w.running("shop/web").len() == 2).then_some(()));
    assert!(nodes(&w).contains(&(gone, "removed".to_owned())));
    assert_eq!(connected(&w, "node"), 1, "who was removed stays out, also without the backup's word");

    fs::rename(w.path("home"), w.path("first")).unwrap();
    fs::rename(elsewhere, w.path("home")).unwrap();
    assert_eq!(w.json(&["status"])["era"], 2, "the other operator's context follows too");
}

#[test]
fn who_was_removed_after_the_backup_stays_out_because_a_node_remembers_it() {
    let (mut w, recovery) = founded();
    let stays = w.add_node("eu");
    let known: Vec<String> = nodes(&w).into_iter().map(|(id, _)| id).collect();
    let removed = w.add_node("eu");
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    let gone = nodes(&w).into_iter().map(|(id, _)| id).find(|id| !known.contains(id)).unwrap();
    // It is off the network when it is removed, and never hears of it.
    w.agents[removed].kill();
    w.ok(&["node", "rm", &gone]);
    let heartbeat = w.agent_state(stays).join("heartbeat");
    eventually("the other node to hold the revocation", || {
        let bytes = fs::read(&heartbeat).ok()?;
        bytes.windows(gone.len()).any(|b| b == gone.as_bytes()).then_some(())
    });

    burn(&mut w);
    let key = recovery.to_str().unwrap();
    w.ok(&["recover", "--backup", &file, "--key-file", key, "--vault-socket", &socket]);
    eventually("the removal to be made up for", || {
        nodes(&w).contains(&(gone.clone(), "removed".to_owned())).then_some(())
    });
    let entries = w.json(&["log", "tail", "-n", "1000"]);
    let entry = entries["entries"].as_array().unwrap().iter().rev().find(|e| e["kind"] == "node.remove").unwrap();
    assert_eq!(entry["fields"]["shown_by"], known[0].as_str(), "{entry}");
    eventually("the node that showed it to be connected", || (connected(&w, "node") == 1).then_some(()));
    w.start_agent(removed, &[]);
    eventually("it to be refused", || w.agents[removed].log_text().contains("certificate-refused").then_some(()));
    assert_eq!(connected(&w, "node"), 1, "its own old certificate does not bring it back");
    w.ok(&["log", "verify"]);
}

#[test]
fn a_backup_that_is_cut_or_altered_and_a_wrong_key_bring_nothing_back() {
    let (mut w, recovery) = founded();
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    assert!(w.refused(&["backup", "create", &file, "--vault-socket", &socket], 2).contains("exists already"));
    let whole = fs::read(&file).unwrap();
    let mut altered = whole.clone();
    let middle = altered.len() / 2;
    // In what the key seals, which is most of it.
    let sealed = altered.len() / 4 * 3;
    altered[sealed] ^= 1;
    let key = recovery.to_str().unwrap().to_owned();
    let wrong = w.unlock_key.to_str().unwrap().to_owned();
    burn(&mut w);
    let bad = w.text("bad.hfbackup");
    for bytes in [&whole[..whole.len() - 1], &whole[..middle], &altered[..]] {
        fs::write(&bad, bytes).unwrap();
        for verb in [
            vec!["backup", "verify", &bad, "--key-file", &key],
            vec!["recover", "--backup", &bad, "--key-file", &key, "--vault-socket", &socket],
        ] {
            let out = w.cli(&[&verb[..], &["--json"]].concat());
            let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
            assert_eq!(said["error"]["code"], "corrupt", "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
            assert_eq!(out.status.code(), Some(1), "{verb:?}: {said}");
        }
    }
    w.refused(&["recover", "--backup", &file, "--key-file", &wrong, "--vault-socket", &socket], 3);
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "uninitialized");
    w.ok(&["recover", "--backup", &file, "--key-file", &key, "--vault-socket", &socket]);
}

#[test]
fn an_exported_log_is_verified_without_the_cluster_and_an_altered_one_is_refused() {
    let (mut w, _) = founded();
    w.put_secret("shop/db", b"a value", &[]);
    let file = w.text("cluster.hflog");
    let exported = w.json(&["log", "export", &file]);
    w.kill_vault();
    let verified = w.json(&["log", "verify", "--file", &file]);
    assert_eq!((&verified["entries"], &verified["root"]), (&exported["entries"], &exported["root"]));
    let whole = fs::read(&file).unwrap();
    for end in [whole.len() - 1, whole.len() / 2, 4] {
        fs::write(&file, &whole[..end]).unwrap();
        assert!(!w.cli(&["log", "verify", "--file", &file]).status.success(), "cut at {end}");
    }
    let mut altered = whole.clone();
    let last = altered.len() - 3;
    altered[last] ^= 1;
    fs::write(&file, altered).unwrap();
    assert!(!w.cli(&["log", "verify", "--file", &file]).status.success());
}

#[test]
fn a_vault_of_the_era_before_that_serves_again_is_believed_by_no_node_and_no_operator_who_followed() {
    let (mut w, recovery) = founded();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let running = shims(&w, 0);
    assert_eq!(running.len(), 1);
    let (file, socket, unlock) = (w.text("cluster.hfbackup"), w.socket(), w.text("era-2.key"));
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    let (home, before) = (w.path("home"), w.path("home-before"));
    assert!(Command::new("cp").arg("-a").args([&home, &before]).status().unwrap().success());
    burn(&mut w);
    let key = recovery.to_str().unwrap();
    let recover = ["recover", "--backup", &file, "--key-file", key, "--vault-socket", &socket];
    w.ok(&[&recover[..], &["--unlock-key-out", unlock.as_str()]].concat());
    eventually("the node to follow", || (connected(&w, "node") == 1).then_some(()));

    // The vault that was thought burnt is there again, at the addresses that everybody knows, with all of its keys.
    w.kill_vault();
    fs::rename(w.path("vault"), w.path("vault-era-2")).unwrap();
    fs::rename(w.path("vault-burnt"), w.path("vault")).unwrap();
    w.start_vault();
    w.unlock();
    let tries = |w: &World| w.agents[0].log_text().matches("no stream to the vault").count();
    let so_far = tries(&w);
    // Of the first one it cannot be told whom it reached.
    eventually("the node to have tried it twice", || (tries(&w) >= so_far + 2).then_some(()));
    assert!(!w.cli(&["node", "ls", "--timeout", "3s"]).status.success(), "an operator who followed is answered by it");
    // It serves those who have not heard of the era: they see that nobody else is with it.
    fs::rename(&home, w.path("home-era-2")).unwrap();
    fs::rename(&before, &home).unwrap();
    assert_eq!(w.json(&["status"])["era"], 1);
    assert_eq!(connected(&w, "node"), 0, "a node that followed is with the era before");
    // The orchestrator may have placed it anew meanwhile, by a grant of the new era.
    let runs_on = |w: &World| running.iter().all(|pid| shims(w, 0).contains(pid));
    assert!(runs_on(&w), "its task ended");

    w.kill_vault();
    fs::rename(w.path("vault"), w.path("vault-era-1")).unwrap();
    fs::rename(w.path("vault-era-2"), w.path("vault")).unwrap();
    fs::rename(&home, &before).unwrap();
    fs::rename(w.path("home-era-2"), &home).unwrap();
    w.start_vault();
    w.ok(&["unlock", "--vault-socket", &socket, "--key-file", &unlock]);
    eventually("the node to be back", || (connected(&w, "node") == 1).then_some(()));
    assert!(runs_on(&w), "its task ended");
}

#[test]
fn a_vault_that_was_put_back_without_a_new_era_is_found_out_by_a_node_that_remembers_more() {
    let (mut w, _) = founded();
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let (running, first) = (shims(&w, 0), nodes(&w).into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    assert_eq!(running.len(), 1);
    w.add_node("us");
    w.kill_vault();
    let (disk, yesterday) = (w.path("vault"), w.path("vault-yesterday"));
    assert!(Command::new("cp").arg("-a").args([&disk, &yesterday]).status().unwrap().success());
    w.start_vault();
    w.unlock();
    // What is not known on the old disk: a node was removed, and whoever follows has heard of it.
    let second = nodes(&w).into_iter().map(|(id, _)| id).find(|id| !first.contains(id)).unwrap();
    w.ok(&["node", "rm", &second]);
    let heard = w.agent_state(0).join("heartbeat");
    for _ in 0..2 {
        let before = fs::read(&heard).unwrap();
        eventually("the node to hear of it", || (fs::read(&heard).unwrap() != before).then_some(()));
    }

    w.kill_vault();
    fs::rename(&disk, w.path("vault-today")).unwrap();
    fs::rename(&yesterday, &disk).unwrap();
    w.start_vault();
    w.unlock();
    let warned = |w: &World| {
        let status = w.json(&["status"]);
        let alarms = status["alarms"].as_array().unwrap();
        alarms.iter().find(|a| a["code"] == "set-back").map(|a| a["text"].as_str().unwrap().to_owned())
    };
    let text = eventually("the alarm", || warned(&w));
    assert!(text.contains("node/") && text.contains("holdfast recover"), "{text}");
    assert!(w.ok(&["log", "tail", "-n", "50"]).contains("status-set-back"));
    assert_eq!(shims(&w, 0), running, "its task runs on");

    // With the disk of today it is believed again.
    w.kill_vault();
    fs::rename(&disk, &yesterday).unwrap();
    fs::rename(w.path("vault-today"), &disk).unwrap();
    w.start_vault();
    w.unlock();
    let before = fs::read(&heard).unwrap();
    eventually("the node to believe it again", || (fs::read(&heard).unwrap() != before).then_some(()));
    assert_eq!(warned(&w), None);
}
