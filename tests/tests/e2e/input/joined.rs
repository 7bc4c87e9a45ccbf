//! The rows of daemons that have joined: a disk that fills up, a clock that is wrong, a vault that is another cluster's.
//! Each is named in one line, and no daemon gives up its identity or what runs.

use super::{SmallDisk, with_clock};
use crate::shims::{assert_running, shims};
use crate::world::{Daemon, World, eventually};
use std::fs;
use std::path::PathBuf;
use suite::programs::program;

/// The lines that are new in a daemon's log.
struct Log {
    path: PathBuf,
    from: usize,
}

impl Log {
    /// What `d` says from now on.
    fn of(d: &Daemon) -> Self {
        Self { path: d.log.clone(), from: d.log_text().len() }
    }
    /// Waits for one line with all of `words`.
    fn says(&self, words: &[&str]) -> String {
        eventually(&format!("a line with {words:?} in {}", self.path.display()), || {
            let text = fs::read_to_string(&self.path).unwrap();
            assert!(!text.contains("panicked"), "{text}");
            text[self.from..].lines().find(|l| words.iter().all(|w| l.contains(w))).map(str::to_owned)
        })
    }
}

/// The two that join, by their programs.
const JOINED: [&str; 2] = ["holdfast-orchestrator", "holdfast-agent"];

fn daemon<'a>(w: &'a mut World, name: &str) -> &'a mut Daemon {
    if name == "holdfast-agent" { &mut w.agents[0] } else { w.orchestrator.as_mut().unwrap() }
}

/// Starts one of the two, which has joined; what it says from now on.
fn start(w: &mut World, name: &str, clock: Option<&str>) -> Log {
    daemon(w, name).kill();
    let log = Log::of(daemon(w, name));
    let mut c = match clock {
        Some(by) => with_clock(name, by),
        None => std::process::Command::new(program(name).unwrap()),
    };
    let config = if name == "holdfast-agent" { "agent0.toml" } else { "orch.toml" };
    c.arg("--config").arg(w.path(config));
    *daemon(w, name) = Daemon::spawn(c, log.path.clone());
    log
}

/// The certificates of the two, as they lie on their disks once both have collected theirs.
fn identities(w: &World) -> [Vec<u8>; 2] {
    [w.path("orch"), w.agent_state(0)]
        .map(|dir| eventually("an identity", || fs::read(dir.join("identity/identity.pem")).ok()))
}

/// Both work together: what is deployed runs.
fn assert_at_work(w: &World) {
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    assert_running(w, 1);
}

#[test]
fn an_agent_whose_disk_fills_up_says_so_and_its_container_runs_on_also_under_the_next_agent() {
    let mut w = World::founded();
    let disk = SmallDisk::mount(&w.agent_state(0), "64m");
    w.add_orchestrator();
    w.add_node("eu");
    assert_at_work(&w);
    let running = shims(&w, 0);
    let log = Log::of(&w.agents[0]);
    disk.fill();
    log.says(&[" ERROR ", "not put into force", "No space left", "make room on the disk of state_dir"]);
    let log = start(&mut w, "holdfast-agent", None);
    log.says(&[" ERROR ", "No space left", "make room on the disk of state_dir"]);
    assert!(w.agents[0].exited().is_none(), "{}", w.agents[0].log_text());
    assert_eq!(shims(&w, 0), running, "the container was touched");

    disk.make_room();
    w.ok(&["service", "scale", "shop/web=2"]);
    assert_running(&w, 2);
    assert!(running.iter().all(|shim| shims(&w, 0).contains(shim)), "the container was replaced");
}

#[test]
fn daemons_that_have_joined_name_a_clock_that_is_far_off_and_work_once_it_is_right() {
    let mut w = World::founded();
    w.add_orchestrator();
    w.add_node("eu");
    let before = identities(&w);
    for (by, off) in [("-400d", "differ by 399d"), ("+400d", "differ by 39")] {
        for name in JOINED {
            let log = start(&mut w, name, Some(by));
            log.says(&[" WARN ", "clock", off, "timedatectl"]);
            assert!(daemon(&mut w, name).exited().is_none(), "{name} at {by} ended");
        }
    }
    // Within its certificates' lives the stream opens, and what the vault signs tells the time: decision 0031.
    let log = start(&mut w, "holdfast-agent", Some("+1h"));
    log.says(&["stream to the vault opened"]);
    log.says(&[" WARN ", "code=clock", "differ by", "the vault's said", "timedatectl"]);
    assert_eq!(identities(&w), before, "an identity was given up for a wrong clock");
    for name in JOINED {
        start(&mut w, name, None);
    }
    assert_at_work(&w);
}

#[test]
fn daemons_whose_vault_addresses_are_another_clusters_name_it_and_keep_their_identity() {
    let mut w = World::founded();
    w.add_orchestrator();
    w.add_node("eu");
    let before = identities(&w);
    w.kill_vault();
    let mut other = World::empty();
    other.kill_vault();
    (other.join, other.service) = (w.join, w.service);
    other.write_vault_config();
    other.start_vault();
    other.found();
    let addr = format!("127.0.0.1:{}", w.service);
    for name in JOINED {
        let log = start(&mut w, name, None);
        let words = [" WARN ", &addr, "the server is not who it should be", "the stored trust is of this cluster"];
        log.says(&words);
        assert!(daemon(&mut w, name).exited().is_none(), "{name} ended");
    }
    assert_eq!(identities(&w), before, "an identity was given up for another cluster");
    assert_eq!(other.json(&["node", "ls"])["nodes"].as_array().unwrap().len(), 0, "the other cluster took one in");
    drop(other);
    w.start_vault();
    w.unlock();
    assert_at_work(&w);
}
