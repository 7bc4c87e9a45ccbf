//! Certificates that live for seconds: renewed again and again under everything that runs, and a vault that dies meanwhile.

use super::callers::{Calls, machine};
use super::seen::shown;
use super::world::{World, eventually};
use holdfast_transport::tls::IdentityCell;
use holdfast_types::sha256;
use std::collections::BTreeSet;

const VALUE: &[u8] = b"correct horse battery staple";
/// Renewed after a third of it; two thirds are left for a vault that has to start again.
const LIVES: &str = "node = \"18s\"\norchestrator = \"18s\"";

/// A cluster whose machines have certificates of seconds.
fn short_lived() -> World {
    let mut w = World::with_lives(LIVES);
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    w
}

/// Waits until the node and the orchestrator have had `more` new certificates each; the node is never away meanwhile.
fn renewed(w: &World, more: usize) {
    let mut serials = [BTreeSet::new(), BTreeSet::new()];
    eventually("new certificates", || {
        for (role, seen) in ["node", "orchestrator"].into_iter().zip(&mut serials) {
            let machine = shown(w, role);
            assert_eq!(machine["state"], "ready", "{machine}");
            assert!(role != "node" || machine["connected"] == true, "the node was away: {machine}");
            seen.insert(machine["serial"].as_str().unwrap().to_owned());
        }
        serials.iter().all(|s| s.len() > more).then_some(())
    });
}

/// The numbers that the task printed, each with the hash of its secret as it was at that moment.
fn ticks(text: &str) -> Vec<(u32, String)> {
    let tick = |line: &str| {
        let mut words = line.split_once(" tick ")?.1.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(tick).collect()
}

#[test]
fn machines_renew_under_running_streams_and_a_vault_that_dies_and_comes_back() {
    let mut w = short_lived();
    w.put_secret("shop/db-password", VALUE, &[]);
    let image = w.busybox();
    let spec = w.write_spec(
        "ticker",
        &format!(
            "name = \"ticker\"\nnamespace = \"shop\"\nimage = {image:?}\n\
             command = [\"/bin/busybox\", \"sh\", \"-c\", \"i=0; while true; do i=$((i+1)); echo tick $i $(/bin/busybox sha256sum < /run/secrets/db-password); /bin/busybox sleep 0.3; done\"]\n\
             secrets = [{{ name = \"db-password\", target = \"db-password\", mode = 0o400 }}]\n"
        ),
    );
    w.ok(&["service", "deploy", "-f", &spec]);
    let task = w.running("shop/ticker")[0].clone();
    let follow = w.beside(&["service", "logs", "shop/ticker", "--follow"], "follow.log");
    eventually("the first lines", || (ticks(&follow.log_text()).len() > 2).then_some(()));

    renewed(&w, 2);
    w.restart_vault();
    eventually("the node to be back by itself", || (shown(&w, "node")["connected"] == true).then_some(()));
    renewed(&w, 2);
    // What is assigned goes out over sessions that were renewed.
    w.ok(&["service", "scale", "shop/ticker=2"]);
    eventually("a second replica", || (w.running("shop/ticker").len() == 2).then_some(()));

    let still = w.running("shop/ticker").into_iter().find(|t| t["id"] == task["id"]);
    assert_eq!(still.expect("the task was replaced")["restarts"], 0);
    let name = task["task"].as_str().unwrap();
    let at_least = ticks(&w.ok(&["service", "logs", "shop/ticker", "--task", name])).len();
    let followed = || -> Vec<(u32, String)> {
        let mine: Vec<_> = follow.log_text().lines().filter(|l| l.starts_with(name)).map(str::to_owned).collect();
        ticks(&mine.join("\n"))
    };
    let followed = eventually("what was printed meanwhile", || Some(followed()).filter(|f| f.len() >= at_least));
    let expected = sha256(&[VALUE]).hex();
    for (n, (tick, secret)) in (1..).zip(&followed) {
        assert_eq!((n, &expected), (*tick, secret), "a line is missing, came twice, or the secret changed");
    }
    assert!(!w.ok(&["log", "tail", "-n", "500"]).contains("identity.fork"));
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn b2_a_certificate_that_was_replaced_is_refused_and_burns_the_identity() {
    let w = short_lived();
    let calls = Calls::believing(&w);
    let old = machine(&w.agent_state(0));
    let before = shown(&w, "node")["serial"].clone();
    // Another certificate than the one that we took, or the one after it.
    eventually("the certificate to be replaced", || {
        let now = shown(&w, "node")["serial"].clone();
        (now != before && machine(&w.agent_state(0)).not_after() != old.not_after()).then_some(())
    });
    let refused = calls.ask(calls.service(&w, &IdentityCell::new(old)), "NodePlane/Sync").unwrap_err();
    assert_eq!(refused.code, "identity-fork", "{refused:?}");
    eventually("the identity to be quarantined", || (shown(&w, "node")["state"] == "quarantined").then_some(()));
    let log = w.ok(&["log", "tail", "-n", "100"]);
    assert!(log.contains("identity.fork"), "{log}");
}
