//! A vault whose clock is wrong, and an applicant's that goes wrong while it waits. What other callers are told of theirs is
//! in `verbs` and `daemons`.

use super::{run, with_clock};
use crate::world::{Daemon, World, eventually};

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

#[test]
fn an_applicant_whose_clock_goes_off_while_it_waits_is_told_so_and_admitted_once_it_is_right() {
    let mut w = World::founded();
    w.write_agent_config(0, "");
    let token = w.token("node", &["--approval", "--zone", "eu"]);
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(0, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    let node = eventually("the node to wait", || {
        let all = w.json(&["node", "ls"]);
        all["nodes"].as_array().unwrap().iter().find(|n| n["state"] == "pending").cloned()
    });
    let (id, key) = (node["id"].as_str().unwrap(), node["key"].as_str().unwrap());
    w.agents[0].kill();
    // By less than certificates are dated back: TLS does not find it, and its questions are too old.
    let mut late = with_clock("holdfast-agent", "-4m");
    late.args(["--config", &w.text("agent0.toml")]);
    w.agents[0] = Daemon::spawn(late, w.path("agent0.log"));
    w.ok(&["node", "approve", id, "--key", key]);
    eventually("the difference in its log", || {
        assert_eq!(w.agents[0].exited(), None, "it did not wait: {}", w.agents[0].log_text());
        w.agents[0].log_text().contains("behind the vault's").then_some(())
    });
    w.agents[0].kill();
    w.start_agent(0, &[]);
    eventually("the node to be connected", || {
        let all = w.json(&["node", "ls"]);
        let up = |n: &serde_json::Value| n["id"] == id && n["state"] == "ready" && n["connected"] == true;
        all["nodes"].as_array().unwrap().iter().any(up).then_some(())
    });
}
