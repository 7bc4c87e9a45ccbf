//! The rows of the operator's tool: every verb that speaks to the cluster, against each fault.

use super::{Said, SmallDisk, run, with_clock, without_override};
use crate::world::{World, free_port, write_key};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use suite::programs::program;

/// Each verb that needs a cluster, with arguments that would do if there were one. `SPEC`, `VALUE` and `SIGNED` are files.
const VERBS: &[&str] = &[
    "status",
    "token create --role node",
    "token ls",
    "token revoke 0011223344556677",
    "secret put shop/x --file VALUE",
    "secret ls",
    "secret history shop/x",
    "secret rm shop/x",
    "node ls",
    "node inspect node-0",
    "node approve node-0 --key 00",
    "node drain node-0",
    "node activate node-0",
    "node zone node-0 eu",
    "node label node-0 disk=ssd",
    "node quarantine node-0",
    "node release node-0 --key 0000000000000000000000000000000000000000000000000000000000000000",
    "node exposure node-0",
    "node rm node-0",
    "mandate put --orchestrator orch-0",
    "mandate ls",
    "mandate revoke m-0",
    "service deploy -f SPEC",
    "service ls",
    "service ps web",
    "service inspect web",
    "service scale web=2",
    "service approve web --node node-0",
    "service rm web",
    "service logs web",
    "image deny sha256:0000000000000000000000000000000000000000000000000000000000000000 --reason drill",
    "image allow sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "image ls",
    "log tail",
    "log verify",
    "grant ls",
    "grant verify 00",
    "grant revoke 00",
    "lockdown --reason drill",
    "release --reason drill",
    "login",
    "submit SIGNED",
    "voter ls",
    "voter admit v-00112233445566778899aabbccddeeff --key 0000000000000000000000000000000000000000000000000000000000000000",
    "voter evict 9 --yes",
    "voter rotate-disk-keys",
    "unlock-key status",
    "recovery-key status",
    "keyring rotate",
    "keyring status",
    "root status",
    "root rotate",
    "root abort",
    "root export",
    "root csr",
];
/// Those that need none; each has tests of its own: `dev` in `super::dev` and `crate::demo`, keys in `crate::keys` and
/// `crate::voters`, statements in files in `crate::operators`, backups in `crate::backup`, what is signed by a root elsewhere in
/// `crate::roots`, tokens in `crate::hsm`.
const ALONE: &[&str] = &[
    "init",
    "unlock",
    "seal",
    "scan",
    "dev",
    "completions",
    "autolock on",
    "autolock off",
    "unlock-key rotate",
    "unlock-key split",
    "recovery-key rotate",
    "backup create",
    "backup verify",
    "recover",
    "hsm probe",
    "log export",
    "inspect",
    "sign",
    "root approve",
    "root sign",
    "root install",
];

/// A founded cluster and copies of its operator's home, each of which may be spoilt.
struct Bench {
    w: World,
    spec: String,
    value: String,
    signed: String,
    /// How long a verb tries.
    patience: &'static str,
}

impl Bench {
    fn new() -> Self {
        let w = World::founded();
        let (spec, value) = (w.web_spec(1), w.text("value"));
        fs::write(&value, "value").unwrap();
        // The first verb logs in.
        w.ok(&["node", "ls"]);
        let signed = w.text("signed");
        w.ok(&["mandate", "put", "--orchestrator", "orch-0", "--out", &signed]);
        Self { w, spec, value, signed, patience: "10s" }
    }
    /// A copy of the context, in a home of its own.
    fn home(&self, name: &str) -> PathBuf {
        let home = self.w.path(name);
        copy(&context(&self.w.path("home")), &context(&home));
        home
    }
    /// Each verb in turn, through `tool`.
    fn each(&self, home: &Path, tool: impl Fn() -> Command, judge: impl Fn(&str, &Said)) {
        for verb in VERBS {
            let words = verb.replace("SPEC", &self.spec).replace("VALUE", &self.value).replace("SIGNED", &self.signed);
            let mut c = tool();
            c.args(words.split(' ')).args(["--timeout", self.patience]).env("HOLDFAST_HOME", home).env("NO_COLOR", "1");
            judge(verb, &run(&mut c));
        }
    }
}

fn tool() -> Command {
    Command::new(program("holdfast").unwrap())
}

fn context(home: &Path) -> PathBuf {
    home.join("contexts/default")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn the_rows_are_all_verbs_that_there_are() {
    let page = suite::repository::read("docs/reference/cli.md").unwrap();
    let listed = page
        .lines()
        .filter_map(|l| l.trim_start_matches('#').trim().strip_prefix("`holdfast "))
        .map(|v| v.trim_end_matches('`'));
    let listed: Vec<&str> = listed.collect();
    // A group of verbs, such as `token`, is none itself.
    let leaves = listed.iter().filter(|v| !listed.iter().any(|o| o.starts_with(&format!("{v} "))));
    for verb in leaves {
        let row = |v: &&str| *v == *verb || v.starts_with(&format!("{verb} "));
        assert!(VERBS.iter().any(row) || ALONE.contains(verb), "no row for `holdfast {verb}`");
    }
}

#[test]
fn a_missing_or_damaged_context_is_named_by_every_verb() {
    let b = Bench::new();
    b.each(&b.w.path("none"), tool, |verb, said| {
        said.tool_fails(verb, 2, &["there is no context", "holdfast init"]);
    });
    let home = b.home("damaged");
    for file in ["context.toml", "trust.pb", "operator.key"] {
        let path = context(&home).join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, b"\xff\xfe not what was written").unwrap();
        b.each(&home, tool, |verb, said| {
            said.tool_fails(verb, 2, &[file, "backup"]);
        });
        fs::write(&path, good).unwrap();
    }
    let bare = b.home("bare");
    fs::remove_file(context(&bare).join("operator.key")).unwrap();
    b.each(&bare, tool, |verb, said| {
        said.tool_fails(verb, 1, &["operator.key", "No such file"]);
    });
}

#[test]
fn a_context_that_may_not_be_read_or_is_open_to_others_is_named_by_every_verb() {
    let b = Bench::new();
    let home = b.home("closed");
    for file in ["context.toml", "operator.key"] {
        let path = context(&home).join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        b.each(
            &home,
            || without_override("holdfast"),
            |verb, said| {
                said.tool_fails(verb, 1, &[file, "Permission denied", "owner"]);
            },
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for file in ["operator.key", "publisher.key"] {
        let path = context(&home).join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        b.each(&home, tool, |verb, said| {
            said.tool_fails(verb, 3, &[file, "chmod 600"]);
        });
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn another_operators_key_and_another_clusters_voter_are_refused_to_every_verb() {
    let b = Bench::new();
    let other = World::founded();
    let home = b.home("stranger");
    let dir = context(&home);
    fs::remove_file(dir.join("login.pb")).unwrap();
    fs::copy(context(&other.path("home")).join("operator.key"), dir.join("operator.key")).unwrap();
    b.each(&home, tool, |verb, said| {
        said.tool_fails(verb, 3, &["sign"]);
    });
    let home = b.home("astray");
    let settings = context(&home).join("context.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let moved = |text: &str, from: u16, to: u16| text.replace(&format!(":{from}"), &format!(":{to}"));
    let text = moved(&moved(&text, b.w.service, other.service), b.w.join, other.join);
    fs::write(&settings, text).unwrap();
    b.each(&home, tool, |verb, said| {
        said.tool_fails(verb, 3, &["the server is not who it should be", "address"]);
    });
    // Its own addresses again, and everything is as before: nothing was spoilt by the attempts.
    assert!(b.w.ok(&["log", "verify"]).starts_with("ok "));
    assert!(b.w.ok(&["secret", "ls"]).lines().count() <= 1);
}

#[test]
fn a_voter_that_cannot_be_reached_is_told_with_its_address_by_every_verb() {
    let mut b = Bench::new();
    b.w.kill_vault();
    fs::remove_file(b.w.socket()).unwrap();
    b.patience = "300ms";
    let addr = format!("127.0.0.1:{}", b.w.service);
    let home = b.home("lonely");
    b.each(&home, tool, |verb, said| {
        said.tool_fails(verb, 5, &[&addr, "refused", "check that it runs"]);
    });
    let addr = format!("127.0.0.1:{}", b.w.join);
    fs::remove_file(context(&home).join("login.pb")).unwrap();
    b.each(&home, tool, |verb, said| {
        said.tool_fails(verb, 5, &[&addr]);
    });
}

#[test]
fn a_clock_that_is_far_off_is_told_by_every_verb() {
    let b = Bench::new();
    // Within the certificates' validity and far outside of it, behind and ahead, logged in and not.
    for (by, words) in [("-5h", "4h"), ("+5h", "5h"), ("-400d", "399d"), ("+400d", "3")] {
        let home = b.home(&format!("clock{by}"));
        b.each(
            &home,
            || with_clock("holdfast", by),
            |verb, said| {
                said.tool_fails(&format!("{verb} at {by}"), 1, &["clock", "differ", words, "timedatectl"]);
            },
        );
    }
    assert!(b.w.ok(&["secret", "ls"]).lines().count() <= 1, "something was done");
}

#[test]
fn a_full_disk_is_told_by_every_verb_that_must_write_and_leaves_nothing_half_written() {
    let b = Bench::new();
    let home = b.w.path("tiny");
    let disk = SmallDisk::mount(&home, "256k");
    copy(&context(&b.w.path("home")), &context(&home));
    fs::remove_file(context(&home).join("login.pb")).unwrap();
    disk.fill();
    b.each(&home, tool, |verb, said| {
        said.tool_fails(verb, 1, &["No space left on device", "free some space"]);
    });
    disk.make_room();
    let said = run(tool().args(["node", "ls"]).env("HOLDFAST_HOME", &home));
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn every_failure_is_a_document_with_json() {
    let b = Bench::new();
    b.each(
        &b.w.path("none"),
        || {
            let mut c = tool();
            c.arg("--json");
            c
        },
        |verb, said| {
            said.tool_fails(verb, 2, &[]);
            let v: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{verb}: {e}: {}", said.out));
            assert_eq!(v["error"]["code"], "no-context", "{verb}");
            for field in ["message", "help"] {
                assert!(!v["error"][field].as_str().unwrap().is_empty(), "{verb}");
            }
            assert!(v["error"]["details"].is_object(), "{verb}");
        },
    );
}

#[test]
fn files_that_a_verb_is_given_are_named_when_they_cannot_be_used() {
    let b = Bench::new();
    let missing = b.w.text("missing");
    let closed = b.w.path("closed");
    fs::write(&closed, "x").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let noise = b.w.path("noise");
    fs::write(&noise, b"\xff\xfe\x00 = [").unwrap();
    let dir = b.w.text("home");
    let home = b.home("files");
    let go = |words: &[&str]| run(without_override("holdfast").args(words).env("HOLDFAST_HOME", &home));
    for (start, end) in
        [(&["service", "deploy", "-f"][..], &[][..]), (&["secret", "put", "shop/x", "--file"], &[]), (&["scan"], &[])]
    {
        let on = |file: &str| go(&[start, &[file], end].concat());
        on(&missing).tool_fails("missing", 1, &[&missing, "No such file"]);
        on(closed.to_str().unwrap()).tool_fails("closed", 1, &["closed", "Permission denied"]);
    }
    for verb in ["inspect", "sign", "submit"] {
        go(&[verb, &missing]).tool_fails("missing", 1, &[&missing, "No such file"]);
        go(&[verb, closed.to_str().unwrap()]).tool_fails("closed", 1, &["closed", "Permission denied"]);
        go(&[verb, noise.to_str().unwrap()]).tool_fails("noise", 2, &["noise", "no file of a signed statement"]);
    }
    go(&["service", "deploy", "-f", noise.to_str().unwrap()]).tool_fails("noise", 2, &["noise", "not UTF-8"]);
    go(&["service", "deploy", "-f", &dir]).tool_fails("folder", 1, &[&dir, "directory"]);
    go(&["secret", "put", "shop/x", "--file", "/dev/null"]).tool_fails("empty", 2, &["empty"]);
}

#[test]
fn the_key_for_unlocking_is_refused_by_name_when_it_cannot_be_used() {
    let mut w = World::founded();
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let vault = w.vault.as_mut().unwrap();
    crate::world::eventually("the sealed process to end", || vault.exited());
    w.start_vault();
    let socket = w.socket();
    let unlock = |file: &Path| {
        run(without_override("holdfast")
            .args(["unlock", "--vault-socket", &socket, "--key-file"])
            .arg(file)
            .env("HOLDFAST_HOME", w.path("home")))
    };
    let key = w.path("some.key");
    unlock(&key).tool_fails("missing", 1, &["some.key", "No such file"]);
    write_key(&key, "hf_unlock_v1_nonsense");
    unlock(&key).tool_fails("malformed", 3, &["hf_unlock_v1_"]);
    write_key(&key, &World::founded_key());
    unlock(&key).tool_fails("wrong", 3, &["does not open voter 1", "current key"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    unlock(&key).tool_fails("exposed", 3, &["some.key", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    unlock(&key).tool_fails("closed", 1, &["some.key", "Permission denied"]);
    let other = World::founded();
    let elsewhere = run(tool()
        .args(["unlock", "--vault-socket", &socket, "--key-file"])
        .arg(&w.unlock_key)
        .env("HOLDFAST_HOME", other.path("home")));
    elsewhere.tool_fails("another cluster's context", 1, &["belongs to cluster", "--context"]);
    for verb in ["unlock", "seal", "status"] {
        let nowhere = w.text(&format!("nowhere-{}", free_port()));
        run(tool().args([verb, "--vault-socket", &nowhere])).tool_fails(verb, 5, &[&nowhere, "running"]);
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    unlock(&w.unlock_key).tool_fails("closed socket", 5, &["Permission denied", "root"]);
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "sealed");
    w.unlock();
}
