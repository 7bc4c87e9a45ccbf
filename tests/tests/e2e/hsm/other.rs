//! Another module than SoftHSM's: a cluster lives over NSS as well.

use super::token::{issuers, root_key, words};
use crate::seen::alarm;
use crate::world::{World, eventually, write_key};
use holdfast_hsm_shim::tokens::{PIN, TestToken};
use std::process::Command;
use suite::programs::program;

fn start(w: &mut World) {
    w.start_vault_with(|name| Command::new(program(name).unwrap()));
}

#[test]
fn a_cluster_is_founded_opened_restarted_and_rotated_over_nss() {
    let mut w = World::empty();
    w.kill_vault();
    let token = TestToken::nss(w.dir.path());
    let pin = w.path("nss.pin");
    write_key(&pin, PIN);
    let hsm = format!("issuer = \"15s\"\n[hsm]\nuri = \"{}\"\npin-file = {pin:?}\nunlock = true\n", token.uri());
    w.lives = Box::leak(hsm.into_boxed_str());
    w.write_vault_config();
    start(&mut w);
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock", "--hsm", &token.uri()]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    assert_eq!(root_key(&w), "hsm");
    eventually("the disk to have a slot of the token", || {
        w.vault.as_ref().unwrap().log_text().contains("opens by its token from now on").then_some(())
    });
    // It opens itself, and the root's key is found again by its id.
    w.kill_vault();
    start(&mut w);
    eventually("the voter to open itself", || {
        (w.json(&["status", "--vault-socket", &w.socket()])["state"] == "ready").then_some(())
    });
    eventually("the token to be well", || (words(&w)[0] == "voter 1: ok").then_some(()));
    let before = issuers(&w);
    eventually("the token to sign another issuer", || (issuers(&w) > before).then_some(()));
    let first = w.json(&["root", "status"])["signer"].clone();
    let done = w.json(&["root", "rotate", "--hsm"]);
    assert_ne!(done["signer"], first);
    assert_eq!((root_key(&w).as_str(), alarm(&w, "token")), ("hsm", None));
    w.ok(&["root", "rotate", "--software"]);
    assert_eq!(root_key(&w), "software");
    w.ok(&["log", "verify"]);
}
