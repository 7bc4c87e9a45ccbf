//! What runs on a node that is removed.

use crate::seen::{log, shown};
use crate::shims::{assert_running, shims};
use crate::world::{World, eventually, within};
use std::time::Duration;

#[test]
fn what_runs_on_a_removed_node_is_gone_within_two_seconds_and_said_to_be() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", b"v", &[]);
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
    let given = w.ok(&["node", "rm", &id]);
    within(Duration::from_secs(2), "the containers to be gone", || shims(&w, 0).is_empty().then_some(()));
    assert!(given.contains("shop/db-password"), "{given}");
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
        w.agents[0].log_text().contains("identity-refused").then_some(())
    });
    assert!(shims(&w, 0).is_empty());
}
