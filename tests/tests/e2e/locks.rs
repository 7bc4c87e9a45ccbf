//! Sealed and unsealed: what a voter does without its key, and with a wrong one.

use super::world::{World, eventually, write_key};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn a_sealed_vault_opens_no_port_and_the_right_key_opens_it() {
    let mut w = World::founded();
    w.put_secret("shop/a", b"value", &[]);
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let vault = w.vault.as_mut().unwrap();
    assert_eq!(eventually("the sealed process to end", || vault.exited()), Some(75));
    w.start_vault();
    for port in [w.join, w.service] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a sealed vault listens on {port}");
    }
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    let wrong = w.path("wrong.key");
    let key = World::founded_key();
    write_key(&wrong, &key);
    let said = w.refused(&["unlock", "--vault-socket", &w.socket(), "--key-file", wrong.to_str().unwrap()], 3);
    assert!(said.contains("key"), "{said}");
    w.unlock();
    assert!(w.ok(&["secret", "ls"]).contains("shop/a"));
    assert!(w.ok(&["log", "tail", "-n", "50"]).contains("unlock.open"));
}

#[test]
fn an_unlock_whose_caller_is_killed_leaves_the_vault_sealed_or_open() {
    let mut w = World::founded();
    for ms in (0..160).step_by(20) {
        w.kill_vault();
        w.start_vault();
        let key = w.unlock_key.display().to_string();
        let mut tool = w.beside(&["unlock", "--vault-socket", &w.socket(), "--key-file", &key], "unlock.log");
        std::thread::park_timeout(Duration::from_millis(ms));
        tool.kill();
        let state = eventually("the vault to be sealed or open", || {
            let state = w.json(&["status", "--vault-socket", &w.socket()])["state"].as_str().unwrap().to_owned();
            matches!(state.as_str(), "sealed" | "ready").then_some(state)
        });
        if state == "ready" {
            let told = || w.ok(&["log", "tail", "-n", "5"]).contains("unlock.open").then_some(());
            eventually("the leaf of the unlocking", told);
        }
    }
    if w.json(&["status", "--vault-socket", &w.socket()])["state"] == "sealed" {
        w.unlock();
    }
    w.put_secret("shop/a", b"value", &[]);
}

#[test]
fn a_vault_that_was_off_until_its_keys_had_lapsed_comes_up_by_unlock() {
    let mut w = World::with_lives("issuer = \"8s\"\noperator = \"6s\"\nvoter = \"6s\"\n");
    w.found();
    w.put_secret("shop/a", b"value", &[]);
    w.kill_vault();
    let killed = std::time::Instant::now();
    eventually("issuer, statement key and certificate to lapse", || (killed.elapsed().as_secs() > 9).then_some(()));
    w.start_vault();
    w.unlock();
    assert_eq!(w.json(&["status"])["state"], "ready");
    w.put_secret("shop/b", b"another", &[]);
    let log = w.ok(&["log", "tail", "-n", "50"]);
    assert!(log.contains("stk.rotate") && log.matches("issuer.create").count() > 1, "{log}");
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

impl World {
    /// A well-formed unlock key of nothing.
    pub fn founded_key() -> String {
        let key = holdfast_types::Secret::<holdfast_types::kind::UnlockSecret, 32>::take(&mut [7; 32]);
        holdfast_wire::token::print_key("unlock", &key).to_string()
    }
}
