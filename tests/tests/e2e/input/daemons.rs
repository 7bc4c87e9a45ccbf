//! The rows of the three daemons: configuration, addresses, permissions, disks, tokens, vaults that are not there.

use super::{Said, SmallDisk, run, with_clock, without_override};
use crate::world::{World, free_port, write_key};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use suite::programs::program;

const DAEMONS: [&str; 3] = ["holdfast-vault", "holdfast-orchestrator", "holdfast-agent"];

/// A folder for one daemon, and the configuration in it.
struct Place {
    dir: tempfile::TempDir,
    run: tempfile::TempDir,
    name: &'static str,
    ports: [u16; 3],
}

impl Place {
    fn of(name: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("hf-input-").tempdir().unwrap();
        let run = tempfile::Builder::new().prefix("hf-input-").tempdir_in("/dev/shm").unwrap();
        let place = Self { dir, run, name, ports: [free_port(), free_port(), free_port()] };
        place.write(&place.good());
        place
    }
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
    fn config(&self) -> String {
        self.path("daemon.toml")
    }
    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }
    fn good(&self) -> String {
        let (state, [a, b, c]) = (self.path("state"), self.ports);
        match self.name {
            "holdfast-vault" => format!(
                "state_dir = {state:?}\nsocket = {:?}\n[listen]\njoin = \"127.0.0.1:{a}\"\nservice = \"127.0.0.1:{b}\"\npeer = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:{c}\"\n",
                self.path("vault.sock")
            ),
            "holdfast-orchestrator" => {
                format!("state_dir = {state:?}\nlisten = \"127.0.0.1:{a}\"\nhealth = \"127.0.0.1:{c}\"\n")
            }
            _ => format!(
                "state_dir = {state:?}\nruntime_dir = {:?}\nhealth = \"127.0.0.1:{c}\"\ncgroup = \"/hf-input-{c}\"\n",
                self.run.path().join("agent")
            ),
        }
    }
    fn start(&self, more: &[&str]) -> Said {
        self.start_as(Command::new(program(self.name).unwrap()), more)
    }
    fn start_as(&self, mut c: Command, more: &[&str]) -> Said {
        run(c.args(["--config", &self.config()]).args(more))
    }
}

#[test]
fn every_daemon_names_what_is_wrong_with_its_configuration() {
    for name in DAEMONS {
        let p = Place::of(name);
        let config = p.config();
        p.write("state_dir = \"relative\"\nno_such_key = 1\n");
        p.start(&["--check-config"]).daemon_fails(
            name,
            2,
            &[&config, ":2:", "no_such_key", "docs/reference/config.md"],
        );
        p.write("state_dir = [\n");
        p.start(&[]).daemon_fails(name, 2, &[&config, ":1"]);
        p.write(&p.good().replace("127.0.0.1", "0.0.0.0").replace(&p.path(""), ""));
        let all = ["state_dir must be an absolute path", "health", "loopback"];
        p.start(&["--check-config"]).daemon_fails(name, 2, &all);
        fs::write(&config, b"\xff\xfe").unwrap();
        p.start(&[]).daemon_fails(name, 2, &[&config, "UTF-8"]);
        fs::set_permissions(&config, fs::Permissions::from_mode(0o000)).unwrap();
        p.start_as(without_override(name), &[]).daemon_fails(name, 2, &[&config, "Permission denied", "--config"]);
        fs::remove_file(&config).unwrap();
        p.start(&[]).daemon_fails(name, 2, &[&config, "No such file", "--config"]);
        fs::create_dir(&config).unwrap();
        p.start(&[]).daemon_fails(name, 2, &[&config, "directory"]);
        fs::remove_dir(&config).unwrap();
        p.write(&p.good());
        assert_eq!(p.start(&["--check-config"]).code, Some(0), "{name}");
        assert!(!Path::new(&p.path("state")).exists(), "{name}: a check made something");
        let said = p.start(&["--log-format", "xml"]);
        assert_eq!(said.code, Some(2), "{name}: {}", said.err);
    }
}

#[test]
fn a_wrong_configuration_is_one_line_of_json_if_the_log_is() {
    for name in DAEMONS {
        let p = Place::of(name);
        p.write("no_such_key = 1\n");
        let said = p.start(&["--log-format", "json"]);
        assert_eq!((said.code, said.err.lines().count()), (Some(2), 1), "{name}: {}", said.err);
        let line: serde_json::Value = serde_json::from_str(&said.err).unwrap();
        assert_eq!((&line["level"], &line["code"]), (&"ERROR".into(), &"configuration".into()), "{name}");
    }
}

#[test]
fn every_daemon_names_the_port_that_is_taken_and_leaves_no_state() {
    for name in DAEMONS {
        let p = Place::of(name);
        let used = if name == "holdfast-orchestrator" { &p.ports[..] } else { &p.ports[2..] };
        for port in used.iter().filter(|port| p.good().contains(&format!(":{port}\""))) {
            let taken = TcpListener::bind(("127.0.0.1", *port)).unwrap();
            let words = [&format!("127.0.0.1:{port}"), "in use", "configure another"].map(str::to_owned);
            p.start(&[]).daemon_fails(name, 1, &words.each_ref().map(String::as_str));
            drop(taken);
        }
        let identity = Path::new(&p.path("state")).join("identity");
        assert!(!identity.join("identity.pem").exists() && !identity.join("pending.pem").exists(), "{name}");
    }
    let w = World::empty();
    let said = run(Command::new(program("holdfast-vault").unwrap()).args(["--config", &w.text("vault.toml")]));
    said.daemon_fails("a second vault", 1, &["vault.sock", "in use", "another socket"]);
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
}

#[test]
fn every_daemon_names_the_folder_that_it_may_not_use() {
    for name in DAEMONS {
        let p = Place::of(name);
        let state = p.path("state");
        fs::write(&state, "a file").unwrap();
        p.start(&[]).daemon_fails(name, 1, &[&state, "check"]);
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        // Somebody else's, and closed: what the user of a unit meets whose folder root made.
        std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o500)).unwrap();
        let mut c = Command::new("setpriv");
        c.arg("--bounding-set=-dac_override,-dac_read_search,-fowner,-chown").arg("--").arg(program(name).unwrap());
        p.start_as(c, &[]).daemon_fails(name, 1, &[&state, "owner"]);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn every_daemon_names_the_disk_that_is_full() {
    for name in DAEMONS {
        let p = Place::of(name);
        let disk = SmallDisk::mount(Path::new(&p.path("state")), "64k");
        disk.fill();
        // A vault writes nothing before `init`, which has a test of its own.
        if name != "holdfast-vault" {
            let token = token_of_nobody(&p, if name == "holdfast-agent" { "node" } else { "orchestrator" });
            let join = ["--join-token-file", &token, "--vault", "127.0.0.1:1"];
            p.start(&join).daemon_fails(name, 1, &["No space left", "space"]);
        }
    }
}

/// A well-formed token of a cluster that does not exist.
fn token_of_nobody(p: &Place, role: &str) -> String {
    use holdfast_types::{Digest, Secret, TokenId};
    use holdfast_wire::token::{JoinToken, TokenRole};
    let role = TokenRole::parse(role).unwrap();
    let secret = Secret::take(&mut [3; 20]);
    let token = JoinToken { role, id: TokenId([1; 8]), anchor: Digest([2; 32]), secret };
    let path = p.path("join.token");
    write_key(Path::new(&path), token.print().as_str());
    path
}

#[test]
fn a_joiner_names_what_is_wrong_with_its_token_its_vault_and_its_clock() {
    let w = World::founded();
    let vault = format!("127.0.0.1:{}", w.join);
    for (name, role, other) in
        [("holdfast-agent", "node", "orchestrator"), ("holdfast-orchestrator", "orchestrator", "node")]
    {
        let p = Place::of(name);
        p.start(&[]).daemon_fails(name, 2, &["has not joined", "--join-token-file", "holdfast token create"]);
        let missing = p.path("none");
        let join = |token: &str| p.start(&["--join-token-file", token, "--vault", &vault]);
        join(&missing).daemon_fails(name, 2, &[&missing, "No such file"]);
        let damaged = p.path("damaged");
        write_key(Path::new(&damaged), "hf_join_v1_nonsense");
        join(&damaged).daemon_fails(name, 3, &[&damaged, "token create"]);
        let wrong = w.token(other, &[]);
        join(wrong.to_str().unwrap()).daemon_fails(name, 3, &[other, "token create --role"]);
        join(&token_of_nobody(&p, role)).daemon_fails(name, 3, &["the server is not who it should be", "join token"]);
        let good = w.token(role, &[]);
        let good = good.to_str().unwrap();
        fs::set_permissions(good, fs::Permissions::from_mode(0o644)).unwrap();
        join(good).daemon_fails(name, 3, &[good, "others may open it", "chmod 600"]);
        fs::set_permissions(good, fs::Permissions::from_mode(0o600)).unwrap();
        p.start(&["--join-token-file", good]).daemon_fails(name, 2, &["--vault"]);
        // The service listener instead of the join listener.
        let service = format!("127.0.0.1:{}", w.service);
        p.start(&["--join-token-file", good, "--vault", &service]).daemon_fails(name, 1, &["another listener", "port"]);
        for (by, words) in [("-5h", "4h"), ("+5h", "5h"), ("-400d", "399d"), ("+400d", "3")] {
            let late = p.start_as(with_clock(name, by), &["--join-token-file", good, "--vault", &vault]);
            late.daemon_fails(&format!("{name} at {by}"), 1, &["clock", "differ", words, "timedatectl"]);
        }
        let all = w.json(&["node", "ls"]);
        assert_eq!(all["nodes"].as_array().unwrap().len(), 0, "{name}: an attempt left something behind: {all}");
    }
}

#[test]
fn a_joiner_that_finds_no_vault_says_which_address_did_not_answer() {
    // Both wait for as long as a vault may take to come up.
    let wait = |name: &'static str, role: &'static str| {
        std::thread::spawn(move || {
            let p = Place::of(name);
            let token = token_of_nobody(&p, role);
            let nowhere = format!("127.0.0.1:{}", free_port());
            let said = p.start(&["--join-token-file", &token, "--vault", &nowhere]);
            said.daemon_fails(name, 5, &[&nowhere, "refused", "check"]);
        })
    };
    let both = [wait("holdfast-agent", "node"), wait("holdfast-orchestrator", "orchestrator")];
    for one in both {
        one.join().unwrap();
    }
}
