//! SIGKILL at any moment: nothing acknowledged is lost, nothing half-done is seen, what runs goes on.

use super::shims::{assert_running, shims};
use super::world::{World, eventually};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::time::Duration;

/// Where the moments come from unless `HOLDFAST_SEED` says otherwise.
const SEED: u64 = 0x0048_6f6c_6466_6173;

/// The seed of this run: printed with every round, so that it can be repeated.
fn seed() -> u64 {
    std::env::var("HOLDFAST_SEED").map_or(SEED, |s| s.parse().expect("HOLDFAST_SEED is a number"))
}

/// Moments drawn from a seed (SplitMix64).
struct Moments(u64);
impl Moments {
    /// A wait of less than `longest_ms`.
    fn next(&mut self, longest_ms: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((z ^ (z >> 31)) % longest_ms)
    }
}

/// A service of one task that reads the secret of the rounds and stays.
fn job(w: &World, round: usize) -> String {
    let image = w.busybox();
    w.write_spec(
        &format!("job{round}"),
        &format!(
            "name = \"job{round}\"\nnamespace = \"shop\"\nimage = {image:?}\n\
             command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n\
             secrets = [{{ name = \"shared\", target = \"shared\", mode = 0o400 }}]\n"
        ),
    )
}

/// What a round began: a new secret, a new version of an old one, and a service; and how each was answered.
struct Round {
    made: Output,
    changed: Output,
    deployed: Output,
}

/// Begins a round and kills the vault in the midst of it.
fn interrupted(w: &World, round: usize, after: Duration) -> Round {
    let (spec, name) = (job(w, round), format!("shop/s{round}"));
    let value = format!("value {round}");
    std::thread::scope(|s| {
        let (value, spec) = (value.as_bytes(), spec.as_str());
        let put = |name: String| move || w.cli_with(&["secret", "put", &name, "--timeout", "2s"], value);
        let (made, changed) = (s.spawn(put(name)), s.spawn(put("shop/shared".to_owned())));
        let deployed = s.spawn(move || w.cli(&["service", "deploy", "-f", spec, "--detach", "--timeout", "2s"]));
        std::thread::park_timeout(after);
        w.vault.as_ref().unwrap().signal(Signal::KILL);
        Round { made: made.join().unwrap(), changed: changed.join().unwrap(), deployed: deployed.join().unwrap() }
    })
}

/// Secrets as `(namespace/name, version)`.
fn secrets(w: &World) -> BTreeSet<(String, u64)> {
    let all = w.json(&["secret", "ls"]);
    let name = |s: &serde_json::Value| {
        let text = |key: &str| s[key].as_str().unwrap().to_owned();
        (format!("{}/{}", text("namespace"), text("name")), s["version"].as_u64().unwrap())
    };
    all["secrets"].as_array().unwrap().iter().map(name).collect()
}

/// Every grant that a node holds was issued in the log.
fn assert_all_grants_logged(w: &World) {
    let log = w.ok(&["log", "tail", "-n", "5000"]);
    let held = fs::read_dir(w.agent_state(0).join("grants")).unwrap();
    for grant in held.map(|e| e.unwrap().file_name().into_string().unwrap()) {
        let issued = |l: &str| l.contains("grant.issued") && l.contains(&grant);
        assert!(log.lines().any(issued), "the node holds grant {grant}, which the log does not know");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_vault_is_killed() {
    let mut w = World::everything();
    let seed = seed();
    let mut moments = Moments(seed);
    w.put_secret("shop/shared", b"the first", &[]);
    let mut version = 1;
    let (mut sure_secrets, mut sure_services) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..6 {
        let after = moments.next(300);
        eprintln!("seed {seed}, round {round}: SIGKILL after {after:?}");
        let r = interrupted(&w, round, after);
        if r.made.status.success() {
            sure_secrets.insert(format!("shop/s{round}"));
        }
        if r.deployed.status.success() {
            sure_services.insert(format!("job{round}"));
        }
        w.restart_vault();
        // Acknowledged: there. Not acknowledged: there wholly, or not at all.
        let there = secrets(&w);
        for name in &sure_secrets {
            assert!(there.contains(&(name.clone(), 1)), "{name} was acknowledged and is gone: {there:?}");
        }
        let now = there.iter().find(|(name, _)| name == "shop/shared").unwrap().1;
        let acknowledged = version + u64::from(r.changed.status.success());
        assert!(now == acknowledged || now == version + 1, "version {now} after {version}, {:?}", r.changed.status);
        version = now;
        assert!(w.ok(&["log", "verify"]).starts_with("ok "));
        assert_all_grants_logged(&w);
    }
    let services = w.ok(&["service", "ls"]);
    for round in 0..6 {
        let name = format!("job{round}");
        assert!(!sure_services.contains(&name) || services.contains(&name), "{name} was acknowledged and is gone");
        if services.contains(&name) {
            let service = format!("shop/{name}");
            eventually(&format!("the task of {service}"), || (w.running(&service).len() == 1).then_some(()));
        }
    }
    assert_all_grants_logged(&w);
}

#[test]
fn deployments_survive_the_death_of_the_agent_and_of_the_orchestrator() {
    let mut w = World::everything();
    let seed = seed();
    let mut moments = Moments(seed ^ 1);
    w.put_secret("shop/shared", b"value", &[]);
    for round in 0..4 {
        let (after, spec) = (moments.next(400), job(&w, round));
        eprintln!("seed {seed}, round {round}: SIGKILL after {after:?}");
        w.ok(&["service", "deploy", "-f", &spec, "--detach"]);
        std::thread::park_timeout(after);
        if round % 2 == 0 {
            w.agents[0].kill();
            w.start_agent(0, &[]);
        } else {
            w.orchestrator.as_mut().unwrap().kill();
            w.start_orchestrator();
        }
        let service = format!("shop/job{round}");
        eventually(&format!("the task of {service}"), || (w.running(&service).len() == 1).then_some(()));
        assert_running(&w, round + 1);
        assert_all_grants_logged(&w);
    }
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn every_daemon_ends_cleanly_when_it_is_told_to_and_containers_run_on() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", b"v", &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    let before = shims(&w, 0);
    assert_eq!(before.len(), 2);
    for daemon in [&mut w.agents[0], w.orchestrator.as_mut().unwrap(), w.vault.as_mut().unwrap()] {
        let log = daemon.log.clone();
        daemon.signal(Signal::TERM);
        let code = super::world::within(Duration::from_secs(20), "the daemon to end", || daemon.exited());
        assert_eq!(code, Some(0), "{}: {}", log.display(), fs::read_to_string(&log).unwrap());
    }
    assert_eq!(shims(&w, 0), before, "a container ended with its agent");
    w.start_vault();
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    w.unlock();
    w.start_orchestrator();
    w.start_agent(0, &[]);
    w.ok(&["service", "scale", "shop/web=3"]);
    eventually("a third replica", || (w.running("shop/web").len() == 3).then_some(()));
    let now = shims(&w, 0);
    assert!(now.len() == 3 && before.iter().all(|pid| now.contains(pid)), "{before:?} were not adopted: {now:?}");
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
