//! The daemons and their configuration: examples are taken as they are shipped, and the reference names every key.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use suite::programs::program;
use suite::repository;

const DAEMONS: [&str; 3] = ["vault", "orchestrator", "agent"];

/// Exit status of `--check-config`, and everything that was said.
fn check(daemon: &str, config: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(program(&format!("holdfast-{daemon}")).unwrap());
    let out = command.arg("--config").arg(config).arg("--check-config").env_clear().output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

fn check_text(daemon: &str, text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    check(daemon, &path)
}

/// The example with every default spelled out.
fn in_full(example: &str) -> String {
    let bare = |line: &str| line.strip_prefix("# ").filter(|rest| key_of(rest).is_some()).map(str::to_owned);
    example.lines().map(|line| bare(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-').then_some(key)
}

/// The keys that a daemon takes in a table (`""`: outside of any).
fn taken(daemon: &str, table: &str) -> BTreeSet<String> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    expected(&check_text(daemon, &format!("{header}no_such_key = 1\n")).1)
}

/// The keys that an error about an unknown one lists.
fn expected(said: &str) -> BTreeSet<String> {
    let (_, list) = said.split_once("expected one of ").or_else(|| said.split_once("expected ")).unwrap();
    list.lines().next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of a page's table: keys with dots.
fn rows(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `")?.split_once('`'));
    rows.map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn each_example_configuration_is_accepted() {
    for daemon in DAEMONS {
        let (status, said) = check(daemon, &repository::root().join(format!("dist/config/{daemon}.toml")));
        assert_eq!(status, Some(0), "{daemon}: {said}");
    }
}

#[test]
fn each_default_that_an_example_shows_is_accepted() {
    for daemon in DAEMONS {
        let example = repository::read(&format!("dist/config/{daemon}.toml")).unwrap();
        let full = in_full(&example);
        assert!(full.lines().filter(|l| key_of(l).is_some()).count() >= 9, "{daemon}: the defaults were not read");
        let (status, said) = check_text(daemon, &full);
        assert_eq!(status, Some(0), "{daemon}: {said}");
    }
}

/// The configuration that a daemon works by, in words.
fn parsed(daemon: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    match daemon {
        "vault" => format!("{:#?}", holdfast_vault::config::load(&path, |_| None).unwrap()),
        "orchestrator" => format!("{:#?}", holdfast_orchestrator::config::load(Some(&path), |_| None).unwrap()),
        _ => format!("{:#?}", holdfast_agent::config::load(&path, |_| None).unwrap()),
    }
}

#[test]
fn each_default_that_an_example_shows_is_the_one_that_counts() {
    // By default a task may use what the machine has: the example shows how less is written.
    let is_default = |line: &&str| !["cpu", "memory"].map(Some).contains(&key_of(line));
    for daemon in DAEMONS {
        let example = repository::read(&format!("dist/config/{daemon}.toml")).unwrap();
        let full: String = in_full(&example).lines().filter(is_default).map(|l| format!("{l}\n")).collect();
        let keys = |text: &str| text.lines().filter(|l| key_of(l).is_some()).count();
        assert!(keys(&full) >= keys(&example) + 7, "{daemon}: the defaults were not read");
        assert_eq!(parsed(daemon, &full), parsed(daemon, &example), "{daemon}");
    }
}

#[test]
fn the_default_ports_are_the_promised_ones() {
    let path = |daemon: &str| repository::root().join(format!("dist/config/{daemon}.toml"));
    let vault = holdfast_vault::config::load(&path("vault"), |_| None).unwrap();
    assert_eq!([vault.join, vault.service, vault.peer, vault.health].map(|a| a.port()), [7400, 7401, 7402, 7403]);
    let orchestrator = holdfast_orchestrator::config::load(Some(&path("orchestrator")), |_| None).unwrap();
    assert_eq!([orchestrator.listen, orchestrator.health].map(|a| a.port()), [7410, 7413]);
    let agent = holdfast_agent::config::load(&path("agent"), |_| None).unwrap();
    assert_eq!(agent.health.port(), 7423);
    assert!([vault.health, orchestrator.health, agent.health].iter().all(|a| a.ip().is_loopback()));
}

#[test]
fn an_unknown_key_is_wrong_usage() {
    for daemon in DAEMONS {
        let (status, said) = check_text(daemon, "no_such_key = 1\n");
        assert_eq!(status, Some(2), "{daemon}: {said}");
        assert!(said.contains("no_such_key"), "{daemon}: {said}");
    }
}

#[test]
fn a_missing_configuration_is_named_in_one_line() {
    for daemon in DAEMONS {
        let (status, said) = check(daemon, Path::new("/nowhere/config.toml"));
        assert_eq!(status, Some(2), "{daemon}: {said}");
        assert!(said.contains("/nowhere/config.toml") && said.lines().count() == 1, "{daemon}: {said}");
    }
}

#[test]
fn the_reference_names_every_key_that_a_daemon_takes_and_no_other() {
    for daemon in DAEMONS {
        let mut keys = taken(daemon, "");
        for table in ["listen", "advertise", "lives", "certificates", "capacity"] {
            let example = repository::read(&format!("dist/config/{daemon}.toml")).unwrap();
            if example.contains(&format!("\n[{table}]\n")) {
                assert!(keys.remove(table), "{daemon}: {table}");
                keys.extend(taken(daemon, table).into_iter().map(|key| format!("{table}.{key}")));
            }
        }
        // No example has a token: its keys have no defaults that would be right.
        if keys.remove("hsm") {
            keys.extend(taken(daemon, "hsm").into_iter().map(|key| format!("hsm.{key}")));
        }
        let page = repository::read("docs/reference/config.md").unwrap();
        let section = page.split("\n## ").find(|s| s.starts_with(&format!("`holdfast-{daemon}`"))).unwrap();
        assert_eq!(rows(section), keys, "{daemon}");
    }
}

#[test]
fn the_reference_names_every_key_of_a_service_file_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service.toml");
    let taken = |header: &str| {
        std::fs::write(&path, format!("{header}\nno-such-key = 1\n")).unwrap();
        let mut holdfast = Command::new(program("holdfast").unwrap());
        let out =
            holdfast.args(["service", "deploy", "-f"]).arg(&path).env("HOLDFAST_HOME", dir.path()).output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        expected(&String::from_utf8_lossy(&out.stderr))
    };
    let mut keys = taken("");
    for (table, header) in [
        ("secrets", "[[secrets]]"),
        ("tmpfs", "[[tmpfs]]"),
        ("ports", "[[ports]]"),
        ("resources", "[resources]"),
        ("health", "[health]"),
        ("update", "[update]"),
    ] {
        keys.extend(taken(header).into_iter().map(|key| format!("{table}.{key}")));
    }
    assert_eq!(rows(&repository::read("docs/reference/service.md").unwrap()), keys);
}

/// A machine without any root certificates, as small images are: the library below panicked where further ones were given.
#[test]
fn a_machine_without_root_certificates_is_told_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("web.toml"), "name = \"web\"\nnamespace = \"shop\"\nimage = \"127.0.0.1:9/web:1\"\n").unwrap();
    let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=root"];
    let made = Command::new("openssl").args(made).args(["-keyout", &file("key"), "-out", &file("root")]).output();
    assert!(made.unwrap().status.success());
    for more in [vec![], vec!["--registry-roots".to_owned(), file("root")]] {
        let mut command = Command::new(program("holdfast").unwrap());
        command.args(["service", "deploy", "-f", &file("web.toml")]).args(more).env("HOLDFAST_HOME", file("home"));
        let out = command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", file("none")).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("install the package ca-certificates") && !said.contains("panicked"), "{said}");
        assert_eq!(out.status.code(), Some(5), "{said}");
    }
}
