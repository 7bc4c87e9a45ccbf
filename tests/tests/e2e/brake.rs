//! The brake, against real processes: one operator stops what is new, more start it again; a sensitive service takes two and an
//! approver; and what a secret was given to can be told afterwards.

use super::operators::Second;
use super::world::{World, eventually};
use serde_json::{Value, json};

fn alarms(w: &World) -> String {
    w.json(&["status"])["alarms"].to_string()
}

fn node(w: &World) -> String {
    let all = w.json(&["node", "ls"]);
    let one = all["nodes"].as_array().unwrap().iter().find(|n| n["role"] == "node").unwrap();
    one["id"].as_str().unwrap().to_owned()
}

/// The one task that runs, once it does.
fn running(w: &World, service: &str) -> Value {
    eventually("the task to run", || w.running(service).first().cloned())
}

#[test]
fn one_operator_stops_the_cluster_and_starts_it_only_with_the_other() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    let spec = w.web_spec(1);
    w.ok(&["service", "deploy", "-f", &spec]);
    let before = running(&w, "shop/web")["id"].clone();
    let b = Second::join(&w, &["release"]);

    w.ok(&["lockdown", "--reason", "a drill"]);
    assert!(alarms(&w).contains("lockdown"), "{}", alarms(&w));
    w.ok(&["service", "scale", "shop/web=2", "--detach"]);
    // It was asked for, and refused by the rule that bears the brake's name.
    eventually("the refusal of a grant", || w.ok(&["log", "tail", "-n", "50"]).contains("L0-lockdown").then_some(()));
    assert_eq!(
        w.running("shop/web").iter().map(|t| t["id"].clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&before)
    );
    // Certificates are given on: an operator's here, and a node's, which joins with one.
    let until = |w: &World| w.json(&["login"])["not_after"].as_str().unwrap().to_owned();
    assert!(until(&w).ends_with('Z'));
    w.add_node("us");
    assert_eq!(w.running("shop/web").len(), 1);

    let alone = w.refused(&["release", "--reason", "it is over"], 3);
    assert!(alone.contains("release needs 2") && alone.contains("--out"), "{alone}");
    let file = w.text("release.signed");
    w.ok(&["release", "--reason", "it is over", "--out", &file]);
    assert!(w.refused(&["submit", &file], 3).contains("op-b"));
    assert!(alarms(&w).contains("lockdown"), "{}", alarms(&w));
    b.ok(&["sign", &file, "--yes"]);
    b.ok(&["submit", &file]);
    eventually("what was held back to run", || (w.running("shop/web").len() == 2).then_some(()));
    assert!(w.running("shop/web").iter().any(|t| t["id"] == before), "what ran was touched");
    assert!(!alarms(&w).contains("lockdown"), "{}", alarms(&w));
    let log = w.json(&["log", "tail", "-n", "200"]);
    let kinds = |kind: &str| log["entries"].as_array().unwrap().iter().find(|e| e["kind"] == kind).cloned().unwrap();
    assert_eq!(kinds("lockdown")["fields"]["reason"], "a drill");
    let both = kinds("release")["actor"].as_str().unwrap().to_owned();
    assert!(both.contains("op/op-b") && both.contains(','), "{both}");
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn a_sensitive_service_takes_two_deployers_and_an_approver_and_its_secrets_way_is_told() {
    let w = World::everything();
    let b = Second::join(&w, &[]);
    w.put_secret("shop/db-password", b"value", &["--reader", "web"]);
    let spec = w.web_spec(1);
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, format!("sensitive = true\n{text}")).unwrap();
    let alone = w.refused(&["service", "deploy", "-f", &spec], 3);
    assert!(alone.contains("2 operators") && alone.contains("--out"), "{alone}");
    let file = w.text("web.signed");
    w.ok(&["service", "deploy", "-f", &spec, "--out", &file]);
    assert!(w.json(&["service", "ls"])["services"].as_array().unwrap().is_empty(), "it was submitted");
    assert!(b.ok(&["inspect", &file]).contains("\"sensitive\": true"));
    b.ok(&["sign", &file, "--yes"]);
    w.ok(&["submit", &file]);
    // Nobody looked at it yet, so it waits.
    eventually("the alarm", || alarms(&w).contains("first-placement").then_some(()));
    assert!(w.running("shop/web").is_empty());
    let id = node(&w);
    w.ok(&["service", "approve", "shop/web", "--node", &id]);
    let first = running(&w, "shop/web")["id"].as_str().unwrap().to_owned();

    w.ok(&["grant", "revoke", &first]);
    let next = eventually("another one in its place", || {
        w.running("shop/web").into_iter().find(|t| t["id"] != first.as_str())
    });
    assert_eq!(next["node"], id.as_str());
    w.refused(&["grant", "revoke", &first], 4);

    w.put_secret("shop/db-password", b"another value", &[]);
    let history = w.json(&["secret", "history", "shop/db-password"]);
    assert_eq!(history["versions"].as_array().unwrap().len(), 2);
    let (old, new) = (&history["versions"][0], &history["versions"][1]);
    assert_eq!((&old["readers"], &old["given"][0]["node"]), (&json!(["shop/web"]), &json!(id)));
    assert!(old["given"][0]["grants"].as_u64().unwrap() >= 2, "{old}");
    assert_eq!(new["given"], json!([]), "nobody was given it");
    assert!(w.refused(&["secret", "history", "shop/none"], 4).contains("shop/none"));
    w.ok(&["node", "zone", &id, "us/west"]);
    w.ok(&["node", "label", &id, "disk=ssd", "none-"]);
    let shown = w.json(&["node", "inspect", &id]);
    assert_eq!((&shown["zone"], &shown["labels"]), (&json!("us/west"), &json!(["disk=ssd"])));
    let exposed = w.json(&["node", "exposure", &id]);
    assert_eq!(exposed["secrets"], json!([{"secret": "shop/db-password", "version": 1}]));
}
