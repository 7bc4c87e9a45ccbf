//! Grants a second that the machine decides: prepare and apply of batches of 100, one secret of 1 KiB each, without
//! Raft, disk or network; beside it the floor: two policy decisions, one HPKE seal and one signature a grant.
//!
//! `cargo run --release -p holdfast-vault-core --example grant_bench`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "a bench prints, stops at the unexpected, and takes from the tests' world what it needs"
)]

#[path = "../tests/world/mod.rs"]
mod world;

use holdfast_policy::{GrantFacts, MountFacts, NodeFacts, OrchestratorFacts, SecretFacts, ServiceFacts};
use holdfast_types::{SecretRef, ServiceRef, Zone};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::{padding, statement, v1};
use std::time::{Duration, Instant};
use world::{Machine, World};

const BATCH: u32 = 100;
const BATCHES: u32 = 20;

fn cluster() -> (World, Machine, Vec<Machine>) {
    let (mut w, orch, first) = World::shop();
    w.put_secret("db", 2, &[7; 1000], &["shop/web"]).unwrap();
    let spec = v1::Spec { replicas_max: 1_000_000, ..w.spec("web", 2, &["db"]) };
    w.deploy(&spec).unwrap();
    let m = v1::Mandate { grants_per_minute: u32::MAX, novelty_per_hour: u32::MAX, ..w.mandate("wide", &[&orch.id]) };
    w.act(&["ada", "ben"], v1::command::Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    w.put_mandate(&m).unwrap();
    let mut nodes = vec![first];
    nodes.extend((1..BATCH).map(|_| w.node()));
    w.checked = false;
    (w, orch, nodes)
}

fn a_second(n: u32, t: Duration) -> f64 {
    f64::from(n) / t.as_secs_f64()
}

fn machine(batch: u32) {
    let (mut w, orch, nodes) = cluster();
    let (mut prepare, mut apply, mut slot) = (Duration::ZERO, Duration::ZERO, 0);
    let total = BATCH * BATCHES;
    for _ in 0..total / batch {
        let asked = (0..batch).map(|i| {
            slot += 1;
            w.ask("web", &nodes[(slot + i) as usize % nodes.len()], slot)
        });
        let asked = asked.collect();
        let start = Instant::now();
        let p = w.prepare_grants(&orch, asked).unwrap();
        prepare += start.elapsed();
        let start = Instant::now();
        let done = w.state.apply(p.command).result.unwrap();
        apply += start.elapsed();
        assert!(done.orders().iter().all(Result::is_ok), "{:?}", done.orders()[0]);
    }
    println!(
        "batches of {batch:>3}    {:>8.0} grants/s   prepare {:>8.0}/s   apply {:>8.0}/s",
        a_second(total, prepare + apply),
        a_second(total, prepare),
        a_second(total, apply)
    );
}

fn floor() {
    let (w, orch, nodes) = cluster();
    let node = NodeFacts {
        id: nodes[0].node(),
        zone: Zone::all(),
        state: "ready".into(),
        attested: false,
        status_fresh: true,
    };
    let service = ServiceFacts {
        service: ServiceRef::of("shop", "web").unwrap(),
        zones: vec![Zone::all()],
        publishers: vec!["ci".into()],
        sensitive: false,
        isolation: "default".into(),
    };
    let orchestrator = OrchestratorFacts {
        orchestrator: orch.orch(),
        mandate_namespaces: vec!["shop".into()],
        mandate_zones: vec![Zone::all()],
        mandate_live: true,
        holds_lease: true,
    };
    let grant = GrantFacts {
        orchestrator,
        service: service.clone(),
        node: node.clone(),
        publishers: vec!["ci".into()],
        spec_active: true,
        within_budget: true,
        wants_relaxed: false,
        lockdown: false,
    };
    let secret = SecretFacts {
        secret: SecretRef::of("shop", "db").unwrap(),
        readers: vec!["shop/web".into()],
        zones: vec![Zone::all()],
        attested_only: false,
    };
    let mount = MountFacts { service, secret, node, lockdown: false };
    let (psk, value) = (w.keys.node_psk(1, &nodes[0].node(), 1).unwrap(), padding::pad(&[7; 1000]));
    let c = Context { purpose: "secret", cluster: &w.cluster, aad: b"aad" };
    let doc = v1::Grant { grant_id: vec![1; 16], ..Default::default() };
    let n = 2000;
    let timed = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        (0..n).for_each(|_| work());
        let t = start.elapsed();
        println!("  {name:<26}{:>8.0}/s", a_second(n, t));
        t
    };
    let total = timed("policy: grant and mount", &|| {
        w.policies.decide_grant(&grant).unwrap();
        w.policies.decide_mount(&mount).unwrap();
    }) + timed("HPKE seal, PSK mode", &|| {
        drop(boxes::seal(&nodes[0].hpke_pub, &c, Some(&psk), &value, [5; 32]).unwrap())
    }) + timed("Ed25519 statement", &|| drop(statement::sign(&doc, &[&w.stk]).unwrap()));
    println!("floor             {:>8.0} grants/s", a_second(n, total));
}

fn main() {
    machine(100);
    machine(1);
    floor();
}
