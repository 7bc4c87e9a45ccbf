//! Sealed voters: what they say, how they are opened all at once, and with which keys.

use super::world::Voters;
use crate::world::{eventually, write_key};
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

/// All of a cluster, sealed, and all of it open again: as in the morning after a power cut.
fn power_cut(v: &mut Voters) {
    let Voters { all, .. } = v;
    for voter in all.iter_mut() {
        voter.kill();
    }
    for voter in all.iter_mut() {
        voter.start(&[]);
        voter.becomes("sealed");
    }
}

/// `unlock` of every voter in one run, with more options.
fn unlock_all(v: &Voters, more: &[&str]) -> std::process::Output {
    let sockets = v.sockets();
    let mut args = vec!["unlock"];
    args.extend(sockets.iter().map(String::as_str));
    args.extend(more);
    v.w.cli(&args)
}

#[test]
fn all_voters_are_opened_by_one_command_after_a_power_cut() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    power_cut(&mut v);
    for voter in &v.all {
        for port in [voter.join, voter.service, voter.peer] {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "voter {} is sealed and listens", voter.id);
        }
        assert_eq!(v.w.json(&["status", "--vault-socket", &voter.socket()])["state"], "sealed");
    }
    // Who asks the cluster is told that nobody is open, and whom to ask.
    v.w.refused(&["secret", "ls", "--timeout", "2s"], 5);
    let o = unlock_all(&v, &["--key-file", v.w.unlock_key.to_str().unwrap()]);
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    v.all.iter().for_each(|voter| voter.becomes("ready"));
    eventually("what opened each voter to be in the log, though only one of them leads", || {
        let log = v.w.ok(&["log", "tail", "-n", "50"]);
        let opened = |voter: &super::world::Voter| {
            let subject = format!("vault/{}", voter.id);
            log.lines().any(|line| line.contains("unlock.open") && line.contains(&subject))
        };
        v.all.iter().all(opened).then_some(())
    });
    assert_eq!(v.put("shop/a", b"value"), 2);
    v.settle();
    v.verifies();
}

#[test]
fn a_wrong_key_opens_none_of_them_and_says_so() {
    let mut v = Voters::founded(3);
    power_cut(&mut v);
    let wrong = v.w.path("wrong.key");
    write_key(&wrong, &crate::world::World::founded_key());
    let o = unlock_all(&v, &["--key-file", wrong.to_str().unwrap(), "--json"]);
    assert_eq!(o.status.code(), Some(3), "{}", String::from_utf8_lossy(&o.stderr));
    assert!(String::from_utf8_lossy(&o.stdout).contains("bad-key"), "{}", String::from_utf8_lossy(&o.stdout));
    assert!(v.all.iter().all(|voter| voter.state() == "sealed"));
    assert!(unlock_all(&v, &["--key-file", v.w.unlock_key.to_str().unwrap()]).status.success());
    v.settle();
}

#[test]
fn one_sealed_voter_of_three_says_so_and_the_others_go_on() {
    let mut v = Voters::founded(3);
    let follower = v.follower();
    v.seal(follower);
    let (id, socket) = (v.all[follower].id, v.all[follower].socket());
    assert_eq!(v.all[follower].ask().unwrap().reason, "the disk key is not here");
    // Its health says so too, at a port that it names.
    let ports = v.w.path("sealed.ports");
    v.kill(follower);
    v.all[follower].start(&["--ports-file", ports.to_str().unwrap()]);
    v.all[follower].becomes("sealed");
    let health = eventually("the port of its health", || {
        let named: serde_json::Value = serde_json::from_str(&fs::read_to_string(&ports).ok()?).ok()?;
        let (_, port) = named["health"].as_str()?.rsplit_once(':')?;
        port.parse().ok()
    });
    assert_eq!(crate::outside::get(health, "/readyz"), (503, "sealed\n".to_owned()));
    // Whoever asks the cluster sees it where the context names its socket.
    v.know_sockets();
    let shown = v.w.json(&["status"]);
    let door = serde_json::json!({"path": socket, "voter": id, "state": "sealed"});
    assert!(shown["sockets"].as_array().unwrap().contains(&door), "{shown}");
    assert_eq!(shown["sockets"].as_array().unwrap().len(), 3, "{shown}");
    assert_eq!(v.put("shop/a", b"value"), 1);
    eventually("the sealed voter to be missed", || {
        v.rows().iter().any(|r| r["id"] == id && r["state"] == "unreachable").then_some(())
    });
    let voter = &v.all[follower];
    for port in [voter.join, voter.service, voter.peer] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a sealed voter listens on {port}");
    }
    voter.unlock(&v.w);
    v.settle();
}

#[test]
fn the_recovery_key_opens_every_voter_when_the_unlock_key_is_lost() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    power_cut(&mut v);
    fs::remove_file(&v.w.unlock_key).unwrap();
    let o = unlock_all(&v, &["--key-file", v.recovery_key.to_str().unwrap()]);
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    v.settle();
    assert_eq!(v.put("shop/a", b"value"), 2);
}

#[test]
fn without_autolock_voters_open_by_themselves_and_with_it_again_only_by_the_new_key() {
    let mut v = Voters::founded(3);
    v.put("shop/a", b"value");
    v.w.ok(&["autolock", "off"]);
    eventually("every voter to lay its key down", || v.rows().iter().all(|r| r["unlock_epoch"] == 0).then_some(()));
    for n in 0..3 {
        v.kill(n);
        v.all[n].start(&[]);
        v.all[n].becomes("ready");
    }
    v.settle();
    assert_eq!(v.put("shop/a", b"value"), 2);

    let (old, new) = (v.w.unlock_key.clone(), v.w.path("new.key"));
    v.w.ok(&["autolock", "on", "--key-out", new.to_str().unwrap(), "--timeout", "60s"]);
    // What lay open may have been copied: it opens nothing any more.
    eventually("every voter to have replaced its disk key", || {
        v.rows().iter().all(|r| r["unlock_epoch"] == 2 && r["disk_key_order"].as_u64() >= Some(1)).then_some(())
    });
    v.settle();
    power_cut(&mut v);
    let o = unlock_all(&v, &["--key-file", old.to_str().unwrap()]);
    assert_eq!(o.status.code(), Some(3), "{}", String::from_utf8_lossy(&o.stderr));
    assert!(unlock_all(&v, &["--key-file", new.to_str().unwrap()]).status.success());
    v.settle();
    assert_eq!(v.put("shop/a", b"value"), 3);
}

#[test]
fn as_many_shares_as_were_said_open_a_voter_and_fewer_or_strange_ones_do_not() {
    let options = ["--autolock", "--unlock-shares", "3", "--unlock-threshold", "2"];
    let mut v = Voters::alone(&options);
    let shares = files(&v, "ours", &v.init["unlock_keys"]);
    assert_eq!(shares.len(), 3);
    v.seal(0);
    let socket = v.all[0].socket();
    let unlock = |v: &Voters, files: &[&PathBuf]| {
        let mut args = vec!["unlock".to_owned(), "--vault-socket".to_owned(), socket.clone(), "--json".to_owned()];
        args.extend(files.iter().flat_map(|f| ["--share-file".to_owned(), f.display().to_string()]));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let o = v.w.cli(&args);
        (o.status.code(), String::from_utf8(o.stdout).unwrap())
    };
    let (code, told) = unlock(&v, &[&shares[0]]);
    assert!(code == Some(3) && told.contains("too-few-shares"), "one share of two: {told}");
    let (code, told) = unlock(&v, &[&shares[0], &shares[0]]);
    assert!(code == Some(3) && told.contains("too-few-shares"), "one share twice: {told}");
    // A genuine share of another cluster.
    let other = Voters::alone(&options);
    let theirs = files(&other, "theirs", &other.init["unlock_keys"]);
    let (code, told) = unlock(&v, &[&shares[0], &theirs[1]]);
    assert!(code == Some(1) && told.contains("wrong-cluster"), "a share of another cluster: {told}");
    assert_eq!(v.all[0].state(), "sealed");
    // Any two of the three.
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        let (code, told) = unlock(&v, &[&shares[a], &shares[b]]);
        assert_eq!(code, Some(0), "shares {a} and {b}: {told}");
        v.all[0].becomes("ready");
        v.seal(0);
    }
    // Whoever mistypes one is told which.
    let text = fs::read_to_string(&shares[1]).unwrap();
    let typo = v.w.path("typo.share");
    let (head, rest) = text.split_at(text.trim_end().len() - 20);
    let other = if rest.starts_with('0') { "1" } else { "0" };
    write_key(&typo, &format!("{head}{other}{}", &rest[1..]));
    let (code, told) = unlock(&v, &[&shares[0], &typo]);
    assert!(code != Some(0) && told.contains("checksum"), "{told}");
}

/// Each printed key in a file of its own.
fn files(v: &Voters, name: &str, keys: &serde_json::Value) -> Vec<PathBuf> {
    let write = |(n, key): (usize, &serde_json::Value)| {
        let path = v.w.path(&format!("{name}-{n}.share"));
        write_key(&path, key.as_str().unwrap());
        path
    };
    keys.as_array().unwrap().iter().enumerate().map(write).collect()
}

impl Voters {
    /// Names every voter's socket in the tool's context.
    pub fn know_sockets(&self) {
        let path = self.w.path("home").join("contexts/default/context.toml");
        let mut text: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let sockets = self.all.iter().map(|v| toml::Value::String(v.socket())).collect();
        text.insert("vault-sockets".to_owned(), toml::Value::Array(sockets));
        fs::write(&path, toml::to_string(&text).unwrap()).unwrap();
    }
}
