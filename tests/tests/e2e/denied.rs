//! An image that operators deny while it runs.

use super::shims::shims;
use super::world::{World, eventually};
use serde_json::Value;

/// Entries of the log of this kind.
fn entries(w: &World, kind: &str) -> Vec<Value> {
    let all = w.json(&["log", "tail", "-n", "500"])["entries"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|e| e["kind"] == kind).collect()
}

/// The alarm about images that are denied, if there is one.
fn alarm(w: &World) -> Option<String> {
    let all = w.json(&["status"])["alarms"].as_array().cloned()?;
    let one = all.into_iter().find(|a| a["code"] == "denied-digest")?;
    Some(one["text"].as_str()?.to_owned())
}

#[test]
fn a_denied_digest_is_flagged_where_it_runs_and_started_nowhere() {
    let mut w = World::everything();
    let image = w.busybox();
    let body = format!(
        "name = \"web\"\nnamespace = \"shop\"\nimage = {image:?}\n\
         command = [\"/bin/busybox\", \"sh\", \"-c\", \"while true; do /bin/busybox sleep 1; done\"]\n"
    );
    let deployed = w.json(&["service", "deploy", "-f", &w.write_spec("web", &body)]);
    let digest = deployed["images"][0].as_str().unwrap().to_owned();
    let node = w.running("shop/web")[0]["node"].as_str().unwrap().to_owned();
    assert_eq!(alarm(&w), None);

    let denied = w.json(&["image", "deny", &digest, "--reason", "a hole was found in it"]);
    assert_eq!(denied["services"], serde_json::json!(["shop/web"]));
    assert!(alarm(&w).is_some_and(|text| text.contains("shop/web")), "what runs of it is not told");
    let flags = entries(&w, "alarm/denied-digest");
    assert_eq!((flags.len(), &flags[0]["subject"], &flags[0]["fields"]["tasks"]), (1, &"shop/web".into(), &"1".into()));
    assert_eq!(w.json(&["image", "ls"])["images"][0]["digest"], digest);
    assert_eq!(w.running("shop/web").len(), 1, "what runs is told, not stopped");
    let refused = w.refused(&["service", "scale", "shop/web=2"], 3);
    assert!(refused.contains("L0-denied"), "{refused}");

    // Its node is lost. The orchestrator asks for the other one, and is given nothing.
    let other = w.add_node("eu");
    w.ok(&["node", "rm", &node]);
    eventually("a grant that is refused", || {
        let all = entries(&w, "grant.denied");
        all.iter().any(|e| e["fields"]["policies"] == "L0-denied").then_some(())
    });
    assert!(w.running("shop/web").is_empty() && shims(&w, other).is_empty());

    w.ok(&["image", "allow", &digest]);
    eventually("the service on the other node", || (w.running("shop/web").len() == 1).then_some(()));
    assert_eq!(alarm(&w), None);
}
