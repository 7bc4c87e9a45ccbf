//! What runs on a node that is removed.

use crate::seen::{log, shown};
use crate::shims::{assert_running, shims};
use crate::world::{World, eventually, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn what_runs_on_a_removed_node_is_gone_within_two_seconds_and_said_to_be() {
    let mut w = World::everything();
    // Given is the second version of one; the first, and another secret, never left the vault.
    w.put_secret("shop/db-password", b"old", &[]);
    w.put_secret("shop/db-password", b"v", &[]);
    w.put_secret("shop/never-given", b"n", &[]);
    // One that does not heed the request to end, too.
    let image = w.busybox();
    let deaf = w.write_spec(
        "deaf",
        &format!(
            "name = \"deaf\"\nnamespace = \"shop\"\nimage = {image:?}\n\
             command = [\"/bin/busybox\", \"sh\", \"-c\", \"trap '' TERM; while true; do /bin/busybox sleep 1; done\"]\n"
        ),
    );
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    w.ok(&["service", "deploy", "-f", &deaf]);
    assert_running(&w, 3);
    let id = shown(&w, "node")["id"].as_str().unwrap().to_owned();
    // From the moment at which somebody asks for it: the list is there, and the containers are gone.
    let begun = Instant::now();
    let removal = w.cli(&["node", "rm", &id, "--json"]);
    let said = String::from_utf8_lossy(&removal.stderr).into_owned();
    assert!(removal.status.success(), "{said}");
    let listed = begun.elapsed();
    assert!(listed < Duration::from_secs(2), "the list took {listed:?}");
    within(Duration::from_secs(2).saturating_sub(listed), "the containers to be gone", || {
        shims(&w, 0).is_empty().then_some(())
    });
    let given: Value = serde_json::from_slice(&removal.stdout).unwrap();
    assert_eq!(given["secrets"], json!([{ "secret": "shop/db-password", "version": 2 }]), "{given}");
    // Before the log was read, which may take its time.
    assert!(said.contains(&format!("{id} is removed")) && said.contains("shop/db-password@2"), "{said}");
    // It said so before it was cut off: the log has the end of each task after the removal.
    let text = eventually("the last words", || {
        let text = log(&w);
        (text.matches("grant.ended").count() >= 3).then_some(text)
    });
    assert!(text.find("node.remove").is_some(), "{text}");
    let all = w.json(&["node", "ls"]);
    assert!(
        all["nodes"].as_array().unwrap().iter().all(|n| n["id"] != id.as_str() || n["connected"] == false),
        "{all}"
    );
    // A removed node starts nothing again, by whatever it is told.
    w.agents[0].kill();
    w.start_agent(0, &[]);
    within(Duration::from_secs(20), "the agent to meet its refusal", || {
        w.agents[0].log_text().contains("certificate-refused").then_some(())
    });
    assert!(shims(&w, 0).is_empty());
}
