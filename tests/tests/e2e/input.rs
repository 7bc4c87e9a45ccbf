//! Bad input: one clear line, the right exit code, nothing changed.

use super::world::{World, free_port};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use suite::programs::program;

fn run(name: &str, args: &[&str]) -> (Option<i32>, String) {
    let o = Command::new(program(name).unwrap()).args(args).output().unwrap();
    (o.status.code(), String::from_utf8_lossy(&o.stderr).into_owned())
}

#[test]
fn every_daemon_names_what_is_wrong_with_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let p = path.to_str().unwrap();
    for name in ["holdfast-vault", "holdfast-orchestrator", "holdfast-agent"] {
        let (code, said) = run(name, &["--config", p]);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains(p), "{name} does not name the missing file: {said}");
        fs::write(&path, "state_dir = \"/x\"\nno_such_key = 1\n").unwrap();
        let (code, said) = run(name, &["--config", p, "--check-config"]);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains("no_such_key"), "{name}: {said}");
        fs::write(&path, "state_dir = [\n").unwrap();
        let (code, said) = run(name, &["--config", p]);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_occupied_port_is_named_and_the_vault_stays_sealed() {
    let w = World::founded();
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let mut w = w;
    let vault = w.vault.as_mut().unwrap();
    super::world::eventually("the sealed process to end", || vault.exited());
    let taken = TcpListener::bind(("127.0.0.1", w.service)).unwrap();
    w.start_vault();
    let key = w.unlock_key.to_str().unwrap().to_owned();
    let said = w.refused(&["unlock", "--vault-socket", &w.socket(), "--key-file", &key], 1);
    assert!(said.contains(&w.service.to_string()), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    drop(taken);
    w.unlock();
}

#[test]
fn an_init_that_cannot_open_its_ports_leaves_nothing_and_can_be_repeated() {
    let w = World::empty();
    let taken = TcpListener::bind(("127.0.0.1", w.service)).unwrap();
    let said = w.refused(&["init", "--vault-socket", &w.socket(), "--autolock"], 1);
    assert!(said.contains(&w.service.to_string()), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
    assert!(!w.path("vault").join("voter").exists());
    drop(taken);
    w.found();
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn the_tool_uses_the_promised_exit_codes() {
    let w = World::founded();
    w.refused(&["no-such-verb"], 2);
    w.refused(&["service", "inspect", "shop/none"], 4);
    w.refused(&["secret", "rm", "shop/none"], 4);
    w.refused(&["node", "inspect", "node-none"], 4);
    let big = vec![b'x'; (500 << 10) + 1];
    let o = w.cli_with(&["secret", "put", "shop/big"], &big);
    assert_eq!(o.status.code(), Some(2), "{}", String::from_utf8_lossy(&o.stderr));
    let spec = w.write_spec("bad", "name = \"web\"\nimage = \"oci-layout:/nowhere\"\nreplicsa = 3\n");
    let said = w.refused(&["service", "deploy", "-f", &spec], 2);
    assert!(said.contains("replicsa"), "{said}");
    let unreachable = format!("/nonexistent-{}", free_port());
    w.refused(&["unlock", "--vault-socket", &unreachable, "--key-file", "/dev/null"], 5);
    let doc = w.cli(&["secret", "rm", "shop/none", "--json"]);
    let v: serde_json::Value = serde_json::from_slice(&doc.stdout).unwrap();
    assert_eq!(v["error"]["code"], "not-found");
}
