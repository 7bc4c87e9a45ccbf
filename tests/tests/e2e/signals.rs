//! Signals: each daemon ends in order when it is told to, and takes no container with it; nothing else moves it.

use super::leftovers;
use super::world::{World, eventually};
use rustix::process::Signal;
use std::fs;
use std::process::{Command, Stdio};
use suite::programs::program;

#[test]
fn a_daemon_that_is_told_to_end_exits_with_0_and_its_containers_run_on() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let before = w.running("shop/web");
    assert_eq!(before.len(), 1);

    for d in [w.vault.as_ref().unwrap(), w.orchestrator.as_ref().unwrap(), &w.agents[0]] {
        d.signal(Signal::HUP);
        eventually("the hangup to be answered", || d.log_text().contains("SIGHUP changes nothing").then_some(()));
    }
    for mut d in [w.agents.remove(0), w.orchestrator.take().unwrap(), w.vault.take().unwrap()] {
        d.signal(Signal::TERM);
        let code = eventually("the daemon to end", || d.exited());
        assert_eq!(code, Some(0), "{}", d.log_text());
    }

    w.start_vault();
    w.unlock();
    w.start_orchestrator();
    w.start_agent(0, &[]);
    let same = |t: &serde_json::Value| (t["id"] == before[0]["id"] && t["restarts"] == 0).then_some(());
    eventually("the same container, adopted", || w.running("shop/web").iter().find_map(same));
}

#[test]
fn a_second_orchestrator_on_one_state_directory_says_so_and_ends() {
    let mut w = World::founded();
    w.add_orchestrator();
    let mut second = Command::new(program("holdfast-orchestrator").unwrap());
    let out = second.args(["--config", &w.text("orch.toml")]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another orchestrator"), "{said}");
}

#[test]
fn a_world_that_ends_leaves_no_process_mount_or_cgroup() {
    let w = World::everything();
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let (dir, run) = (w.dir.path().to_owned(), w.agent_run(0));
    let name = w.cgroup();
    let processes = || {
        let all =
            fs::read_dir("/proc").unwrap().flatten().map(|e| fs::read(e.path().join("cmdline")).unwrap_or_default());
        all.filter(|line| String::from_utf8_lossy(line).contains(dir.to_str().unwrap())).count()
    };
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mounts").unwrap();
        [&dir, &run].iter().map(|d| all.matches(d.to_str().unwrap()).count()).sum::<usize>()
    };
    assert!(processes() >= 4 && mounts() > 0 && !leftovers::cgroups(&name).is_empty(), "the search finds nothing");
    drop(w);
    eventually("every process to be gone", || (processes() == 0).then_some(()));
    assert_eq!((mounts(), leftovers::cgroups(&name)), (0, Vec::new()));
}
