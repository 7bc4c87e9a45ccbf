//! Two orchestrators: one schedules, the other takes over, and nothing runs twice meanwhile.

use super::identities::deploy;
use super::second::{Second, between, changed_at, lease, pictures, taken_over};
use super::shims::{assert_running, shims};
use super::world::{World, eventually};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// From the end of a lease until another holds it: five seconds on a machine that has nothing else to do.
const TAKEOVER_MS: i64 = 8_000;

/// All containers on all nodes.
fn containers(w: &World) -> Vec<u32> {
    (0..w.agents.len()).flat_map(|n| shims(w, n)).collect()
}

#[test]
fn a_killed_orchestrator_is_followed_within_seconds_of_its_lease_and_its_exclusive_task_goes_on_alone() {
    let mut w = World::everything();
    deploy(&w, "only", "exclusive = true");
    let second = Second::beside(&w);
    let (first, before) = (lease(&w).unwrap(), containers(&w));
    assert!(first["holder"] != second.id.as_str() && before.len() == 1, "{first}, {before:?}");
    w.orchestrator.take().unwrap().kill();
    let held = lease(&w).unwrap();
    assert_eq!(held["holder"], first["holder"]);
    let now = taken_over(&w, &second.id, || assert_eq!(containers(&w), before));
    let late = between(&held["until"], &changed_at(&w));
    assert!(late <= TAKEOVER_MS, "taken over {late} ms after the lease ended");
    assert_eq!(now["fence"].as_u64(), held["fence"].as_u64().map(|f| f + 1));
    // It schedules, and nodes take it from the new holder; what ran goes on.
    deploy(&w, "more", "");
    assert_running(&w, 2);
    assert!(containers(&w).contains(&before[0]));
    // The first is back: it waits.
    let log = w.path("orch.log");
    let so_far = pictures(&log);
    w.start_orchestrator();
    eventually("the first to be connected", || (pictures(&log) > so_far).then_some(()));
    deploy(&w, "most", "");
    assert_eq!(lease(&w).unwrap()["fence"], now["fence"]);
    assert_running(&w, 3);
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn an_orchestrator_that_stood_still_over_its_lease_starts_and_stops_nothing_when_it_goes_on() {
    // A grant that was on its way holds the exclusive place for as long as this.
    let mut w = World::with_lives("exclusive = \"8s\"\ngrace = \"2s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    w.add_node("eu");
    deploy(&w, "stays", "");
    let second = Second::beside(&w);
    // It stands still somewhere between the order and the container.
    let image = w.busybox();
    let only = format!(
        "name = \"only\"\nnamespace = \"shop\"\nimage = {image:?}\nexclusive = true\n\
         command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec("only", &only), "--detach"]);
    let first = w.orchestrator.as_ref().unwrap();
    first.signal(Signal::STOP);
    let at_most_once = || assert!(containers(&w).len() <= 2, "the exclusive task runs twice: {:?}", containers(&w));
    let held = lease(&w).unwrap();
    let now = taken_over(&w, &second.id, at_most_once);
    let late = between(&held["until"], &changed_at(&w));
    assert!(late <= TAKEOVER_MS, "taken over {late} ms after the lease ended");
    eventually("the exclusive task", || {
        at_most_once();
        (w.running("shop/only").len() == 1).then_some(())
    });
    assert_running(&w, 2);
    let before = containers(&w);
    first.signal(Signal::CONT);
    eventually("the first to notice", || {
        at_most_once();
        first.log_text().contains("lease lost").then_some(())
    });
    deploy(&w, "more", "");
    assert_running(&w, 3);
    assert!(before.iter().all(|pid| containers(&w).contains(pid)), "something was stopped");
    assert_eq!(lease(&w).unwrap()["fence"], now["fence"]);
}

/// Two orchestrators and no node: there is a namespace to schedule, and the first has its lease.
fn two() -> (World, Second) {
    let mut w = World::founded();
    w.add_orchestrator();
    let image = w.busybox();
    let spec = format!(
        "name = \"web\"\nnamespace = \"shop\"\nimage = {image:?}\n\
         command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec("web", &spec), "--detach"]);
    eventually("the first to schedule", || lease(&w));
    let second = Second::beside(&w);
    (w, second)
}

#[test]
fn an_orchestrator_that_is_removed_is_followed_at_once() {
    let (w, second) = two();
    let held = lease(&w).unwrap();
    let begun = Instant::now();
    w.ok(&["node", "rm", held["holder"].as_str().unwrap()]);
    let now = taken_over(&w, &second.id, || ());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(now["fence"].as_u64(), held["fence"].as_u64().map(|f| f + 1));
}

#[test]
fn a_vault_that_was_away_for_longer_than_a_lease_gives_it_back_once() {
    let (mut w, second) = two();
    // The holder never comes back, and the vault only once its lease is over.
    w.orchestrator.take().unwrap().kill();
    let held = lease(&w).unwrap();
    assert!(held["holder"] != second.id.as_str(), "{held}");
    w.kill_vault();
    let until = Instant::now() + Duration::from_secs(7);
    eventually("the lease to be over", || (Instant::now() >= until).then_some(()));
    w.start_vault();
    w.unlock();
    let extended =
        eventually("the lease to be extended", || lease(&w).filter(|l| between(&held["until"], &l["until"]) > 6_000));
    assert_eq!((&extended["holder"], &extended["fence"]), (&held["holder"], &held["fence"]));
    taken_over(&w, &second.id, || ());
    let late = between(&extended["until"], &changed_at(&w));
    assert!(late <= TAKEOVER_MS, "taken over {late} ms after the lease ended");
}
