//! SIGKILL at any moment: nothing acknowledged is lost, nothing half-done is seen, what runs goes on.

use super::world::{World, eventually};
use std::time::Duration;

/// Moments, in milliseconds after a write began, at which the vault is killed; fixed, so that a failure can be repeated.
const MOMENTS: [u64; 6] = [0, 3, 9, 17, 33, 60];

#[test]
fn nothing_acknowledged_is_lost_when_the_vault_is_killed() {
    let mut w = World::founded();
    let mut acknowledged = Vec::new();
    for (round, ms) in MOMENTS.iter().enumerate() {
        for i in 0..2 {
            let name = format!("shop/s{round}-{i}");
            w.put_secret(&name, name.as_bytes(), &[]);
            acknowledged.push(name);
        }
        // One more is under way while the vault dies: it is there wholly or not at all.
        let under_way = format!("shop/u{round}");
        let o = std::thread::scope(|s| {
            let (w, name) = (&w, under_way.as_str());
            let pid = w.vault.as_ref().unwrap().pid();
            let put = s.spawn(move || w.cli_with(&["secret", "put", name, "--timeout", "2s"], b"value"));
            std::thread::park_timeout(Duration::from_millis(*ms));
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
            put.join().unwrap()
        });
        if o.status.success() {
            acknowledged.push(under_way);
        }
        w.kill_vault();
        w.start_vault();
        w.unlock();
        let list = w.ok(&["secret", "ls"]);
        for name in &acknowledged {
            assert!(list.contains(name.as_str()), "{name} was acknowledged and is gone:\n{list}");
        }
        assert!(w.ok(&["log", "verify"]).starts_with("ok "));
    }
}

#[test]
fn running_containers_outlive_the_agent_the_orchestrator_and_the_vault() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    let before = w.running("shop/web");
    let ids = |tasks: &[serde_json::Value]| {
        let mut v: Vec<_> = tasks.iter().map(|t| (t["id"].to_string(), t["restarts"].to_string())).collect();
        v.sort();
        v
    };

    w.agents[0].kill();
    w.start_agent(0, &[]);
    eventually("the node to be back", || {
        (w.json(&["node", "ls"])["nodes"].as_array()?.iter().any(|n| n["role"] == "node" && n["connected"] == true))
            .then_some(())
    });
    eventually("the tasks to be adopted", || (ids(&w.running("shop/web")) == ids(&before)).then_some(()));

    w.orchestrator.as_mut().unwrap().kill();
    w.start_orchestrator();
    w.ok(&["service", "scale", "shop/web=3"]);
    eventually("a third replica by the new orchestrator", || (w.running("shop/web").len() == 3).then_some(()));

    w.kill_vault();
    w.start_vault();
    w.unlock();
    eventually("all three after the vault's return", || (w.running("shop/web").len() == 3).then_some(()));
    w.ok(&["service", "scale", "shop/web=4"]);
    eventually("a fourth replica", || (w.running("shop/web").len() == 4).then_some(()));
    let now = ids(&w.running("shop/web"));
    assert!(ids(&before).iter().all(|t| now.contains(t)), "a running container was replaced");
}
