//! The pages of `docs/operations`, followed word for word: each command that they show is run, in their order, on a
//! cluster of its own. Paths, addresses and the ids that a reader fills in are put in their places; `systemctl` starts and
//! stops the daemons of this cluster, `ssh -L` is a forwarding of ours, and what needs other users or packages is left out
//! (`chown`, `install -m`, the two files of a vault's new address, which are written where the page says so).

use super::identities::thief::next_key;
use super::leftovers;
use super::tunnel;
use super::world::{World, eventually, free_port, write_key};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use suite::programs::program;
use suite::repository;

/// Somebody who reads a page and types.
struct Reader {
    w: World,
    /// What stands for ID, LOST and FINGERPRINT just now.
    names: BTreeMap<&'static str, String>,
    /// Of the terminal in which the page is followed.
    umask: String,
    /// What stands for `~/.config/holdfast` on the machine at which the reader sits.
    home: PathBuf,
    /// The vault is at another address than it was.
    moved: bool,
}

/// The commands that a page shows: the lines of its blocks without a language.
pub fn commands(page: &str) -> Vec<String> {
    let text = repository::read(&format!("docs/operations/{page}")).unwrap();
    let mut fence = None;
    let mut found = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some("")) => found.push(line.to_owned()),
            (None, _) => {}
        }
    }
    assert!(!found.is_empty(), "{page} shows no command");
    found
}

/// A line as a shell takes it, with the programs under test, in the world's folder.
pub fn shell(w: &World, line: &str) -> Command {
    let bin = program("holdfast").unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.parent().unwrap().display());
    let mut c = Command::new("sh");
    c.args(["-c", line]).current_dir(w.dir.path()).env("PATH", path).stdin(Stdio::null());
    c.env("HOLDFAST_HOME", w.path("home")).env("NO_COLOR", "1");
    c
}

impl Reader {
    fn of(w: World) -> Self {
        let home = w.path("home");
        Self { w, names: BTreeMap::new(), umask: String::new(), home, moved: false }
    }
    /// Follows `page` and returns what its commands printed.
    fn follow(&mut self, page: &str) -> String {
        self.umask = "022".to_owned();
        commands(page).iter().map(|line| self.type_in(page, line)).collect()
    }

    fn type_in(&mut self, page: &str, line: &str) -> String {
        if line.starts_with("install -d -m 0700 ~/") {
            self.home = self.w.path("elsewhere");
        }
        let mut line = line
            .replace("~/.config/holdfast", self.home.to_str().unwrap())
            .replace("/var/lib/holdfast-vault", &self.w.text("vault"))
            .replace("/var/lib/holdfast-agent", &self.w.text("agent0"))
            .replace("/run/holdfast-vault/vault.sock", &self.w.socket())
            .replace("vault.example.org:7400", &format!("127.0.0.1:{}", self.w.join))
            .replace("/etc/holdfast/agent.toml", &self.w.text("agent0.toml"))
            .replace("/etc/holdfast/orchestrator.toml", &self.w.text("orch.toml"))
            .replace(" node.token", &format!(" {}", self.w.text("node.token")))
            .replace(" orchestrator.token", &format!(" {}", self.w.text("orchestrator.token")));
        for (name, value) in &self.names {
            line = line.replace(&format!(" {name}"), &format!(" {value}"));
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["systemctl", "restart", unit] => {
                self.tell_of_the_new_address(unit);
                self.unit("stop", unit) + &self.unit("start", unit)
            }
            ["systemctl", verb, unit] => self.unit(verb, unit),
            ["ssh", .., "-L", paths, _host] => {
                let (here, there) = paths.split_once(':').unwrap();
                tunnel::forward(&self.w.dir.path().join(here), there.into());
                String::new()
            }
            ["ssh", "-S", _, "-O", "exit", _host] => {
                fs::remove_file(self.w.path("forwarded.sock")).unwrap();
                String::new()
            }
            ["install", "-d", .., dir] if dir == self.w.text("vault") => {
                self.come_to_the_new_machine();
                String::new()
            }
            // Here everything belongs to root.
            ["chown", ..] => String::new(),
            ["umask", mask] => {
                self.umask = mask.to_owned();
                String::new()
            }
            // The programs under test are the new ones already.
            ["install", "-m", ..] => String::new(),
            ["holdfast-agent", "--config", _, ref more @ ..] => {
                self.w.start_agent(0, more);
                let agent = &self.w.agents[0];
                eventually("the agent to join", || agent.log_text().contains("joined").then_some(()));
                String::new()
            }
            ["holdfast-orchestrator", "--config", _, ref more @ ..] => {
                self.w.start_orchestrator_with(more);
                self.meet_the_new_orchestrator();
                String::new()
            }
            ["holdfast" | "install" | "tar" | "shred" | "df" | "du", ..] => {
                let o = self.tool(&line);
                assert!(o.status.success(), "{page}: {line}: {}", String::from_utf8_lossy(&o.stderr));
                String::from_utf8(o.stdout).unwrap()
            }
            _ => panic!("{page}: what does this do? {line}"),
        }
    }

    /// A line in the terminal of this reader. Who is asked for a key answers.
    fn tool(&self, line: &str) -> Output {
        let mut c = shell(&self.w, &format!("umask {}; {line}", self.umask));
        c.env("HOLDFAST_HOME", &self.home);
        c.stdin(File::open(&self.w.unlock_key).map_or_else(|_| Stdio::null(), Stdio::from)).output().unwrap()
    }

    fn unit(&mut self, verb: &str, unit: &str) -> String {
        let daemon = match unit {
            "holdfast-vault" => self.w.vault.as_mut(),
            "holdfast-orchestrator" => self.w.orchestrator.as_mut(),
            "holdfast-agent" => self.w.agents.first_mut(),
            _ => panic!("no unit {unit}"),
        };
        match (verb, unit) {
            ("stop", _) => {
                let daemon = daemon.unwrap();
                daemon.signal(rustix::process::Signal::TERM);
                assert_eq!(eventually("the daemon to end", || daemon.exited()), Some(0), "{unit}");
            }
            ("start", "holdfast-vault") => self.w.start_vault(),
            ("start", "holdfast-orchestrator") => self.w.start_orchestrator(),
            ("start", _) => self.w.start_agent(0, &[]),
            _ => panic!("systemctl {verb}"),
        }
        String::new()
    }

    /// A vault as it is after a reboot.
    fn reseal(&mut self) {
        self.w.ok(&["seal", "--vault-socket", &self.w.socket()]);
        let vault = self.w.vault.as_mut().unwrap();
        eventually("the sealed process to end", || vault.exited());
        self.w.start_vault();
    }
    /// What the old machine had is out of reach, and the vault gets another address in its configuration.
    fn come_to_the_new_machine(&mut self) {
        fs::rename(self.w.path("vault"), self.w.path("vault-of-the-old-machine")).unwrap();
        fs::create_dir(self.w.path("vault")).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(self.w.path("vault"), private).unwrap();
        (self.w.join, self.w.service) = (free_port(), free_port());
        self.w.write_vault_config();
        self.moved = true;
    }
    /// Once the vault has moved, the configuration of whoever is restarted names its new address.
    fn tell_of_the_new_address(&self, unit: &str) {
        let told = format!("vault_service = [\"127.0.0.1:{}\"]\n", self.w.service);
        match unit {
            "holdfast-agent" if self.moved => self.w.write_agent_config(0, &told),
            "holdfast-orchestrator" if self.moved => {
                let path = self.w.path("orch.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text + &told).unwrap();
            }
            _ => {}
        }
    }

    fn machine(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.w.json(&["node", "ls"])["nodes"].as_array()?.iter().find(|n| is(n)).cloned())
    }
    fn name(&mut self, placeholder: &'static str, v: &Value) {
        self.names.insert(placeholder, v.as_str().unwrap().to_owned());
    }
    /// The orchestrator that waits is the one that the page is about.
    fn meet_the_new_orchestrator(&mut self) {
        let new =
            self.machine("an orchestrator that waits", |n| n["role"] == "orchestrator" && n["state"] == "pending");
        self.name("ID", &new["id"]);
        self.name("FINGERPRINT", &new["key"]);
    }
    fn reads(&self, expected: &[u8]) {
        let hash = holdfast_types::sha256(&[expected]).hex();
        eventually("the service to read its secret", || {
            self.w.ok(&["service", "logs", "shop/web"]).contains(&hash).then_some(())
        });
    }
}

fn said_key(said: &str, kind: &str) -> String {
    said.split_whitespace().find(|w| w.starts_with(kind)).unwrap().to_owned()
}

#[test]
fn each_page_of_operations_can_be_followed_as_it_is_written() {
    let mut r = Reader::of(World::empty());
    let said = r.follow("found.md");
    assert!(said.contains("uninitialized") && said.contains("\nok "), "{said}");
    let key = said_key(&said, "hf_unlock_v1_");
    // Under the name that the page uses.
    assert_eq!(r.w.unlock_key, r.w.path("unlock.key"));
    write_key(&r.w.unlock_key, &key);
    let recovery = said_key(&said, "hf_recovery_v1_");
    write_key(&r.w.path("recovery.key"), &recovery);
    r.reseal();
    let said = r.follow("unlock.md");
    assert!(said.contains("sealed") && said.contains("voter 1 is ready"), "{said}");
    r.reseal();
    let said = r.follow("lost-keys.md");
    assert!(said.contains("voter 1 is ready"), "{said}");

    r.w.write_agent_config(0, "");
    let said = r.follow("add-node.md");
    assert!(said.contains("disk=ssd"), "{said}");
    let node = r.machine("the node to be connected", |n| n["role"] == "node" && n["connected"] == true);

    r.w.add_orchestrator();
    let lost = r.machine("the orchestrator to be admitted", |n| n["role"] == "orchestrator" && n["state"] == "ready");
    r.w.put_secret("shop/db-password", b"old", &["--reader", "web"]);
    let spec = r.w.web_spec(1);
    r.w.ok(&["service", "deploy", "-f", &spec]);
    r.reads(b"old");

    fs::write(r.w.path("new-password.txt"), "new").unwrap();
    let text = fs::read_to_string(&spec).unwrap();
    fs::write(&spec, format!("env = {{ ROTATED = \"2\" }}\n{text}")).unwrap();
    let said = r.follow("rotate-secret.md");
    assert!(said.contains("shop/db-password@2"), "{said}");
    r.reads(b"new");

    let said = r.follow("upgrade.md");
    assert!(said.contains("\nok ") && said.contains("shop/web"), "{said}");
    let grant = r.w.running("shop/web")[0]["id"].clone();
    let said = r.follow("read-the-log.md");
    assert!(said.contains("\nok ") && said.contains("secret.put"), "{said}");

    r.w.orchestrator.as_mut().unwrap().kill();
    fs::remove_dir_all(r.w.path("orch")).unwrap();
    r.name("LOST", &lost["id"]);
    r.follow("lost-orchestrator.md");
    assert_eq!(r.w.running("shop/web")[0]["id"], grant, "a task was replaced");

    r.name("ID", &node["id"]);
    let said = r.follow("remove-node.md");
    assert!(said.contains("shop/db-password") && said.contains("node.remove"), "{said}");
    assert!(r.w.ok(&["log", "verify"]).starts_with("ok "));

    let said = r.follow("rotate-keys.md");
    assert!(said.contains("the old key is disposable") && said.contains("\nok "), "{said}");
    let said = r.follow("rotate-root.md");
    assert!(said.contains("phase     stable") && said.contains("\nok "), "{said}");
    r.w.unlock_key = r.w.path("new-unlock.key");
    r.reseal();
    r.w.unlock();
}

#[test]
fn the_pages_for_bad_days_can_be_followed_as_they_are_written() {
    let mut r = Reader::of(World::everything());
    r.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    let spec = r.w.web_spec(1);
    r.w.ok(&["service", "deploy", "-f", &spec]);
    // Brings the vault's socket over.
    r.follow("unlock.md");
    r.reseal();
    let said = r.follow("full-disk.md");
    assert!(said.contains("voter 1 is ready") && said.contains("\nok "), "{said}");

    let said = r.follow("operator-context.md");
    assert!(said.contains("\nok "), "{said}");
    assert!(r.home.join("contexts/default/operator.key").exists() && !r.w.path("operator.tar").exists());
    r.home = r.w.path("home");

    let (task, old) = (r.w.running("shop/web")[0]["id"].clone(), r.w.service);
    let said = r.follow("restore-vault.md");
    assert!(said.contains("voter 1 is ready") && said.contains("\nok "), "{said}");
    assert_ne!(r.w.service, old);
    r.machine("the node at the new address", |n| n["role"] == "node" && n["connected"] == true);
    assert_eq!(r.w.running("shop/web")[0]["id"], task, "a task was replaced");
    // The orchestrator found it too: what is deployed now is placed.
    r.w.ok(&["service", "scale", "shop/web=2"]);
}

#[test]
fn a_node_that_reboots_gets_its_tasks_back_as_the_page_says() {
    let mut r = Reader::of(World::everything());
    r.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    let spec = r.w.web_spec(1);
    r.w.ok(&["service", "deploy", "-f", &spec]);
    r.reads(b"value");
    let before = r.w.running("shop/web")[0].clone();
    r.name("ID", &before["node"]);
    // All processes are gone, and all that was in memory or mounted.
    r.w.agents[0].kill();
    leftovers::end_tasks(&r.w.agent_state(0));
    let run = r.w.agent_run(0);
    leftovers::unmount_below(&run);
    leftovers::unmount_below(&r.w.agent_state(0));
    fs::remove_dir_all(&run).unwrap();
    r.w.start_agent(0, &[]);
    let after = eventually("the task under a new grant", || {
        r.w.running("shop/web").into_iter().find(|t| t["id"] != before["id"])
    });
    assert_eq!(after["node"], before["node"]);
    let said = r.follow("reboot-node.md");
    assert!(said.contains("ready") && said.contains("grant.issued"), "{said}");
    assert!(r.w.ok(&["log", "tail", "-n", "100"]).contains("node.renew"), "no new keys");
    r.reads(b"value");
}

#[test]
fn a_cluster_comes_back_from_its_backup_as_the_pages_say() {
    let mut r = Reader::of(World::empty());
    let init = r.w.json(&["init", "--vault-socket", &r.w.socket(), "--autolock"]);
    write_key(&r.w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    write_key(&r.w.path("recovery.key"), init["recovery_keys"][0].as_str().unwrap());
    r.w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    let said = r.follow("backup.md");
    assert!(said.contains("ok"), "{said}");
    assert!(r.w.path("cluster.hfbackup").exists());
    assert!(r.w.ok(&["log", "tail", "-n", "20"]).contains("backup.create"));
    // The machine burns, and its key with it; another one stands in its place.
    r.unit("stop", "holdfast-vault");
    r.come_to_the_new_machine();
    fs::remove_file(&r.w.unlock_key).unwrap();
    r.w.start_vault();
    let said = r.follow("disaster.md");
    assert!(said.contains("ready") && said.contains("\nok "), "{said}");
    assert!(r.w.ok(&["secret", "ls"]).contains("shop/db-password"));
    assert!(r.w.ok(&["log", "tail", "-n", "50"]).contains("reset"));
    // The new key opens it from now on.
    r.w.kill_vault();
    r.w.start_vault();
    r.w.unlock();
    assert_eq!(r.w.json(&["status"])["state"], "ready");
}

#[test]
fn a_quarantined_node_goes_on_as_the_page_says() {
    let mut r = Reader::of(World::everything());
    let node = r.machine("the node", |n| n["role"] == "node" && n["connected"] == true);
    let (id, old) = (node["id"].as_str().unwrap(), node["key"].as_str().unwrap());
    r.w.ok(&["node", "quarantine", id, "--reason", "its disk was restored"]);
    let key = eventually("its next key on its console", || next_key(&r.w).filter(|key| key != old));
    r.name("ID", &node["id"]);
    r.name("FINGERPRINT", &Value::String(key));
    let said = r.follow("quarantined-node.md");
    assert!(said.contains("node.quarantine") && said.contains(id), "{said}");
    r.machine("the node to be back", |n| n["id"] == id && n["state"] == "ready" && n["connected"] == true);
}

#[test]
fn everything_new_stops_and_starts_again_as_the_page_says() {
    let mut r = Reader::of(World::founded());
    let said = r.follow("lockdown.md");
    for words in ["the cluster is locked down", "\nok ", "release: 1 needed, signed by", "is accepted"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!r.w.json(&["status"])["alarms"].to_string().contains("lockdown"), "{said}");
}

#[test]
fn every_page_of_operations_is_followed_by_a_test() {
    let all = repository::pages().unwrap();
    let tests = || all.iter().filter(|p| p.path.starts_with("tests/tests/e2e/"));
    for page in all.iter().filter(|p| p.path.starts_with("docs/operations/")) {
        let name = page.path.trim_start_matches("docs/operations/");
        // What the others share, and no course of commands.
        let call = format!("follow(\"{name}\")");
        let followed = name == "running.md" || tests().any(|t| t.text.contains(&call));
        assert!(followed, "nobody follows {name}");
    }
}
