//! A rotation under a service that runs, with everybody connecting all the time.

use super::served::others_believe;
use super::{roots, signer, stable, trusted};
use crate::beside::Stop;
use crate::callers::Calls;
use crate::seen::{connected, shown};
use crate::world::{World, eventually};
use holdfast_transport::tls::Alpn;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node's certificate lives where one is dead.
const LIFE: Duration = Duration::from_secs(12);
/// Beside that: half a second between two looks of the leader, the steps that are left, and the tool that sees them done.
const STEPS: Duration = Duration::from_secs(3);

/// What the service prints: numbers, without end.
fn deploy_ticker(w: &World) {
    let image = w.busybox();
    let spec = w.write_spec(
        "ticker",
        &format!(
            "name = \"ticker\"\nnamespace = \"shop\"\nimage = {image:?}\n\
             command = [\"/bin/busybox\", \"sh\", \"-c\", \"i=0; while true; do i=$((i+1)); echo tick $i; /bin/busybox sleep 0.2; done\"]\n"
        ),
    );
    w.ok(&["service", "deploy", "-f", &spec]);
}

fn ticks(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.split_once(" tick ")?.1.trim().parse().ok()).collect()
}

#[test]
fn a_rotation_under_a_running_service_disturbs_nobody_who_connects_all_the_time() {
    let mut w = World::everything();
    deploy_ticker(&w);
    let task = w.running("shop/ticker")[0].clone();
    let follow = w.beside(&["service", "logs", "shop/ticker", "--follow"], "follow.log");
    eventually("the first lines", || (ticks(&follow.log_text()).len() > 2).then_some(()));
    let before = signer(&w);
    let old_pem = w.text("before.pem");
    w.ok(&["root", "export", "--out", &old_pem]);
    // It pins the root from before.
    let token = w.token("node", &["--zone", "eu"]);
    // Whoever trusts the old root alone, and never hears of another one.
    let asleep = Calls::believing(&w);

    let over = AtomicBool::new(false);
    let (tries, failed, done) = thread::scope(|s| {
        let probe = s.spawn(|| {
            let (mut tries, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let mut note = |what: &str, went: Result<(), String>| {
                    tries += 1;
                    failed.extend(went.err().map(|e| format!("{what}: {e}")));
                };
                let link = asleep.join(w.join).map(drop).map_err(|f| f.to_string());
                note("who trusts the old root alone, to the vault", link);
                for (port, alpn) in [(w.join, Alpn::Join), (w.service, Alpn::Service)] {
                    note("others with the old root, to the vault", others_believe(port, alpn, old_pem.as_ref()));
                }
                for args in [&["service", "ps", "shop/ticker"][..], &["service", "logs", "shop/ticker"]] {
                    let o = w.cli(args);
                    let went =
                        if o.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&o.stderr).into_owned()) };
                    note(&args.join(" "), went);
                }
            }
            (tries, failed)
        });
        let stop = Stop(&over);
        let done = w.json(&["root", "rotate"]);
        // Once more, when all is over.
        w.ok(&["status"]);
        drop(stop);
        let (tries, failed) = probe.join().unwrap();
        (tries, failed, done)
    });
    assert!(failed.is_empty(), "of {tries} tries failed: {failed:#?}");
    assert!(tries >= 5, "nobody connected meanwhile");

    assert_eq!((done["phase"].as_str(), trusted(&done)), (Some("stable"), 1), "{done}");
    assert_ne!(done["signer"], before.as_str());
    assert_eq!(done["trusted"][0]["identities"], 3, "a voter, an orchestrator and a node: {done}");
    let still = w.running("shop/ticker").into_iter().find(|t| t["id"] == task["id"]);
    assert_eq!(still.expect("the task was replaced")["restarts"], 0);
    let seen = ticks(&follow.log_text()).len();
    eventually("the same stream to go on", || (ticks(&follow.log_text()).len() > seen).then_some(()));
    let lines = ticks(&follow.log_text());
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "lines are missing: {lines:?}");

    // Others believe the served chain by either root, and the exported one is the new one.
    let new_pem = w.text("after.pem");
    w.ok(&["root", "export", "--out", &new_pem]);
    assert_ne!(fs::read(&old_pem).unwrap(), fs::read(&new_pem).unwrap());
    for roots in [&old_pem, &new_pem] {
        others_believe(w.join, Alpn::Join, roots.as_ref()).unwrap();
        others_believe(w.service, Alpn::Service, roots.as_ref()).unwrap();
    }
    let document = w.ok(&["root", "export", "--format", "spiffe"]);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["keys"].as_array().unwrap().len(), 1);

    // Who holds a token from before joins by it.
    let n = w.agents.len();
    w.write_agent_config(n, "");
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(n, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    eventually("the node with the old token to be connected", || {
        let all = w.json(&["node", "ls"]);
        let up = all["nodes"].as_array()?.iter().filter(|n| n["connected"] == true).count();
        (up == 2).then_some(())
    });
}

#[test]
fn a_rotation_ends_within_one_leaf_lifetime_with_a_dead_node_present() {
    let mut w = World::with_lives("node = \"12s\"");
    w.found();
    w.add_node("eu");
    let before = signer(&w);
    w.agents[0].kill();
    let begun = Instant::now();
    w.ok(&["root", "rotate", "--detach"]);
    // The voter itself may still be among those that are waited for.
    eventually("the dead node to be waited for", || {
        let now = roots(&w);
        let is_dead = |s: &serde_json::Value| s["role"] == "node" && s["connected"] == false;
        (now["phase"] == "reissuing" && now["stragglers"].as_array()?.iter().any(is_dead)).then_some(())
    });
    let done = stable(&w);
    // Its certificate was there before the order: it is over within its life, and nothing but that was waited for.
    let took = begun.elapsed();
    assert!(took < LIFE + STEPS, "{took:?} for a certificate of {LIFE:?} and steps of {STEPS:?}");
    assert_eq!(trusted(&done), 1);
    assert_ne!(done["signer"], before.as_str());
}

#[test]
fn a_node_that_slept_through_a_rotation_comes_back_and_lets_it_end() {
    let mut w = World::everything();
    let before = signer(&w);
    w.agents[0].kill();
    w.ok(&["root", "rotate", "--detach"]);
    let node = shown(&w, "node")["id"].clone();
    eventually("everybody else to be under the new root", || {
        let now = roots(&w);
        let left: Vec<_> = now["stragglers"].as_array()?.iter().map(|s| s["id"].clone()).collect();
        (now["phase"] == "reissuing" && left == std::slice::from_ref(&node)).then_some(())
    });
    w.start_agent(0, &[]);
    let done = stable(&w);
    assert_ne!(done["signer"], before.as_str());
    connected(&w);
    assert_eq!(roots(&w)["trusted"][0]["identities"], 3);
}
