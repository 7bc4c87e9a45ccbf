//! What runs and what does not while no vault can be asked: the table of `docs/operations/running.md`, with shortened clocks, for
//! each way in which a vault can be away.

use super::shims::{assert_running, shims};
use super::voters::world::{Voter, Voters};
use super::world::{World, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::{Duration, Instant};

/// A lease may be a quarter old when the vault goes, and going takes its time: enough is left of it to look at what it allows.
const LIVES: &str = "grant = \"20s\"\ngrace = \"10s\"";
const LEASE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);
/// By then what ends with a time has ended.
const MARGIN: Duration = Duration::from_millis(1_000);

/// A service that ends when it is asked to.
fn spec(w: &World, name: &str, more: &str) -> String {
    let image = w.busybox();
    let text = format!(
        "name = {name:?}\nnamespace = \"shop\"\nimage = {image:?}\n{more}\n\
         command = [\"/bin/busybox\", \"sh\", \"-c\", \"trap 'exit 0' TERM; while true; do /bin/busybox sleep 1; done\"]\n"
    );
    w.write_spec(name, &text)
}

/// The shim that was not there `before`.
fn another(w: &World, before: &[u32]) -> u32 {
    eventually("another container", || shims(w, 0).into_iter().find(|pid| !before.contains(pid)))
}

/// Deploys the service; the shim of its container.
fn start(w: &World, name: &str, more: &str) -> u32 {
    let before = shims(w, 0);
    w.ok(&["service", "deploy", "-f", &spec(w, name, more)]);
    another(w, &before)
}

/// The container of this shim ends as by a fault of its own.
fn crash(shim: u32) {
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let init = children.split_whitespace().next().expect("the shim has no container").parse().unwrap();
    kill_process(Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
}

/// The same, and it is started again: the next shim.
fn restarted(w: &World, shim: u32) -> u32 {
    let before = shims(w, 0);
    crash(shim);
    another(w, &before)
}

/// These containers run, and no others.
fn assert_these(w: &World, mut wanted: Vec<u32>, when: &str) {
    wanted.sort_unstable();
    assert_eq!(shims(w, 0), wanted, "{when}");
}

fn wait_until(moment: Instant) {
    eventually("a time to be over", || (Instant::now() >= moment).then_some(()));
}

/// Follows the table, row by row; `away` takes the vault away, and brings it back.
fn follow(w: &mut World, mut away: impl FnMut(&mut World, bool)) {
    // Up: tasks start, are started again, and are taken back.
    w.add_orchestrator();
    w.add_node("eu");
    w.put_secret("shop/db-password", b"value", &[]);
    let web = start(w, "web", "secrets = [{ name = \"db-password\" }]");
    let stops = start(w, "stops", "on-expiry = \"stop\"");
    let (stays, unwanted) = (start(w, "stays", ""), start(w, "unwanted", ""));
    start(w, "short", "");
    w.ok(&["service", "rm", "shop/short"]);
    let web = restarted(w, web);
    assert_running(w, 4);

    // Away, within the lease: what runs runs and is started again, with its secret. Nothing new starts, nothing is taken back.
    w.orchestrator.as_ref().unwrap().signal(Signal::STOP);
    w.ok(&["service", "deploy", "-f", &spec(w, "late", ""), "--detach"]);
    away(w, true);
    let begun = Instant::now();
    w.orchestrator.as_ref().unwrap().signal(Signal::CONT);
    let web = restarted(w, web);
    w.refused(&["service", "rm", "shop/unwanted", "--timeout", "2s"], 5);
    assert_these(w, vec![web, stops, stays, unwanted], "within the lease");

    // Within the grace: what runs runs; what crashes is not started again.
    wait_until(begun + LEASE + MARGIN);
    assert_these(w, vec![web, stops, stays, unwanted], "after the lease");
    crash(web);

    // Beyond: as each service says.
    let mut left = vec![stays, unwanted];
    left.sort_unstable();
    eventually("what is to stop to have stopped", || (shims(w, 0) == left).then_some(()));
    wait_until(begun + LEASE + GRACE + MARGIN);
    assert_these(w, left, "beyond lease and grace");

    away(w, false);
    // An order that was not acknowledged was carried out or not.
    let removed = || w.cli(&["service", "rm", "shop/unwanted"]).status.code();
    eventually("the vault to take something back", || matches!(removed(), Some(0 | 4)).then_some(()));
    for service in ["shop/web", "shop/stops", "shop/stays", "shop/late"] {
        eventually(&format!("{service} to run again"), || (w.running(service).len() == 1).then_some(()));
    }
    assert_running(w, 4);
}

fn sealed() {
    let mut w = World::with_lives(LIVES);
    w.found();
    follow(&mut w, |w, away| {
        if !away {
            return w.unlock();
        }
        w.ok(&["seal", "--vault-socket", &w.socket()]);
        let vault = w.vault.as_mut().unwrap();
        assert_eq!(eventually("the sealed process to end", || vault.exited()), Some(75));
        w.start_vault();
    });
}

fn unreachable() {
    let mut w = World::with_lives(LIVES);
    w.found();
    follow(&mut w, |w, away| {
        if away {
            w.kill_vault();
        } else {
            w.start_vault();
            w.unlock();
        }
    });
}

/// Two of three voters are away: the third is there and cannot lead.
fn leaderless() {
    let mut v = Voters::founded_at(3, |w, name| {
        let mut voter = Voter::place(w, name);
        voter.lives = LIVES;
        voter
    });
    let (leader, _) = v.leader();
    let Voters { all, w, .. } = &mut v;
    follow(w, |w, away| {
        for (_, voter) in all.iter_mut().enumerate().filter(|(n, _)| *n != leader) {
            if away { voter.kill() } else { voter.come_back(w) }
        }
    });
}

#[test]
fn what_runs_and_what_does_not_while_the_vault_is_away_is_as_the_table_says() {
    // Beside each other: most of it is waiting.
    std::thread::scope(|all| {
        for outage in [sealed, unreachable, leaderless] {
            all.spawn(outage);
        }
    });
}
