//! A vault whose clock is wrong. What its callers are told of theirs is in `verbs` and `daemons`.

use super::{run, with_clock};
use crate::world::{World, eventually};

#[test]
fn a_vault_whose_clock_is_behind_its_own_log_stays_sealed_and_says_why() {
    let mut w = World::founded();
    w.put_secret("shop/a", b"value", &[]);
    w.ok(&["seal"]);
    let vault = w.vault.as_mut().unwrap();
    eventually("the sealed process to end", || vault.exited());
    w.start_vault_with(|name| with_clock(name, "-3d"));
    let key = w.unlock_key.to_str().unwrap().to_owned();
    let said = w.refused(&["unlock", "--vault-socket", &w.socket(), "--key-file", &key], 1);
    assert!(said.contains("clock is 2d behind"), "{said}");
    assert!(said.contains("help: set the clock right"), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    w.kill_vault();
    w.start_vault();
    w.unlock();
    assert!(w.ok(&["secret", "ls"]).contains("shop/a"));
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn a_vault_without_autolock_ends_if_its_clock_is_behind_its_log() {
    let mut w = World::empty();
    w.ok(&["init", "--vault-socket", &w.socket()]);
    w.kill_vault();
    let mut c = with_clock("holdfast-vault", "-3d");
    run(c.args(["--config", &w.text("vault.toml")])).daemon_fails(
        "the vault",
        1,
        &["clock", "behind", "set the clock right"],
    );
    w.start_vault();
    assert_eq!(w.json(&["status"])["state"], "ready");
}
