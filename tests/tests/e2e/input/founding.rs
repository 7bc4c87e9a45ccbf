//! `init` that is cut off: no key is lost, none is replaced.

use super::{SmallDisk, run};
use crate::world::{World, eventually, write_key};
use serde_json::Value;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use suite::programs::program;

fn init(w: &World, home: &Path) -> Command {
    let mut c = Command::new(program("holdfast").unwrap());
    c.args(["init", "--vault-socket", &w.socket(), "--autolock", "--json"]).env("HOLDFAST_HOME", home);
    c
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_init_that_is_cut_off_goes_on_with_its_keys() {
    let mut w = World::empty();
    let home = w.path("home");
    // The cluster is founded, and its keys cannot be shown: the last moment at which all could be lost.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = init(&w, &home).stdin(Stdio::null()).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "ready");
    let kept = home.join("contexts/default/founding.toml");
    let before = fs::read_to_string(&kept).unwrap();
    // The machine goes down meanwhile: the vault is sealed by a key that nobody has seen yet.
    w.kill_vault();
    w.start_vault();
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    let other = run(init(&w, &home).arg("--trust-domain").arg("other.example"));
    other.tool_fails("other options", 2, &["did not end", "founding.toml"]);
    let said = run(&mut init(&w, &home));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let shown = document(&said.out);
    for key in [&shown["unlock_keys"][0], &shown["recovery_keys"][0]] {
        assert!(before.contains(key.as_str().unwrap()), "another key than the one that was kept");
    }
    assert!(!kept.exists(), "the keys were shown and are still on the disk");
    write_key(&w.unlock_key, shown["unlock_keys"][0].as_str().unwrap());
    w.ok(&["seal"]);
    let vault = w.vault.as_mut().unwrap();
    eventually("the sealed process to end", || vault.exited());
    w.start_vault();
    w.unlock();
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
    run(&mut init(&w, &home)).tool_fails("founded already", 2, &["exists already"]);
}

#[test]
fn an_init_that_the_vault_could_not_carry_out_is_repeated_with_the_same_keys() {
    let w = World::empty();
    let home = w.path("home");
    let taken = TcpListener::bind(("127.0.0.1", w.service)).unwrap();
    run(&mut init(&w, &home)).tool_fails("occupied port", 1, &[&w.service.to_string(), "another address"]);
    let before = fs::read_to_string(home.join("contexts/default/founding.toml")).unwrap();
    run(&mut init(&w, &home)).tool_fails("occupied port", 1, &[&w.service.to_string()]);
    drop(taken);
    let said = run(&mut init(&w, &home));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(before.contains(document(&said.out)["recovery_keys"][0].as_str().unwrap()));
}

#[test]
fn an_init_that_cannot_keep_its_keys_asks_no_vault_and_an_old_key_is_never_overwritten() {
    let w = World::empty();
    let home = w.path("home");
    let disk = SmallDisk::mount(&home, "64k");
    disk.fill();
    run(&mut init(&w, &home)).tool_fails("full disk", 1, &["No space left", "free some space"]);
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
    drop(disk);
    let dir = home.join("contexts/default");
    fs::create_dir_all(&dir).unwrap();
    write_key(&dir.join("operator.key"), "the only one");
    run(&mut init(&w, &home)).tool_fails("an old key", 2, &["operator.key", "--context"]);
    assert_eq!(fs::read_to_string(dir.join("operator.key")).unwrap(), "the only one");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
    let founded = World::founded();
    let fresh = w.path("fresh");
    run(&mut init(&founded, &fresh)).tool_fails("another's vault", 4, &["founded already"]);
    assert!(!fresh.join("contexts/default/founding.toml").exists());
}
