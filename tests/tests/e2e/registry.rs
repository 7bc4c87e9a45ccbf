//! Services whose images lie in a real registry.

use super::image::write_layout;
use super::world::{World, eventually};
use serde_json::Value;
use std::fs;

#[allow(dead_code, reason = "the registry of another crate's tests, of which these need a part")]
#[path = "../../../orchestrator/agent/tests/support/registry.rs"]
mod real;
use real::Registry;

/// An image whose file `/word` says `word`, in the registry as `shop/web:1.4`; its digest.
fn push(w: &World, registry: &Registry, word: &str) -> String {
    let layout = w.path(&format!("layout-{word}"));
    let busybox = fs::read("/bin/busybox").unwrap();
    write_layout(&layout, &[("bin/busybox", &busybox), ("word", format!("the word is {word}\n").as_bytes())]);
    registry.push(layout.to_str().unwrap(), "shop/web:1.4");
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// A service that prints the word of its image and stays.
fn spec(w: &World, registry: &Registry, more: &str) -> String {
    let body = format!(
        "name = \"web\"\nnamespace = \"shop\"\nimage = \"{}/shop/web:1.4\"\n\
         command = [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /word; while true; do /bin/busybox sleep 1; done\"]\n{more}\n",
        registry.name()
    );
    w.write_spec("web", &body)
}

fn printed(w: &World, word: &str) -> usize {
    w.ok(&["service", "logs", "shop/web"]).matches(&format!("the word is {word}")).count()
}

#[test]
fn a_service_is_deployed_by_tag_and_runs_by_digest_wherever_the_tag_moves() {
    let mut w = World::everything();
    let registry = Registry::start(w.dir.path());
    let one = push(&w, &registry, "one");
    let file = spec(&w, &registry, "update = { on-failure = \"rollback\" }");
    let deployed = w.cli(&["service", "deploy", "-f", &file, "--json"]);
    let said = String::from_utf8_lossy(&deployed.stderr);
    assert!(deployed.status.success(), "{said}");
    assert!(said.contains("update.on-failure: rolling back is not available yet"), "{said}");
    let document: Value = serde_json::from_slice(&deployed.stdout).unwrap();
    assert_eq!(document["images"], serde_json::json!([one]));
    eventually("the word of the image", || (printed(&w, "one") == 1).then_some(()));

    // The tag moves. A node that has never seen the image fetches what was deployed.
    assert_ne!(push(&w, &registry, "two"), one);
    let second = w.add_node("eu");
    eventually("the second node's session", || w.agents[second].log_text().contains("session opened").then_some(()));
    w.ok(&["service", "scale", "shop/web=2"]);
    let running = w.running("shop/web");
    assert_eq!(running.len(), 2);
    assert_ne!(running[0]["node"], running[1]["node"], "replicas are spread over nodes");
    eventually("the same word from both", || (printed(&w, "one") == 2).then_some(()));
    assert_eq!(printed(&w, "two"), 0);
}

#[test]
fn a_registry_with_a_root_of_its_own_serves_whoever_is_told_of_that_root() {
    let mut w = World::everything();
    let registry = Registry::start_tls(w.dir.path());
    push(&w, &registry, "one");
    let file = spec(&w, &registry, "");
    let said = w.refused(&["service", "deploy", "-f", &file], 5);
    assert!(said.contains(registry.name()) && said.contains("certificate"), "{said}");

    let root = registry.root();
    w.agents[0].kill();
    w.write_agent_config(0, &format!("registry_roots = [{root:?}]"));
    w.start_agent(0, &[]);
    w.ok(&["service", "deploy", "-f", &file, "--registry-roots", root.to_str().unwrap()]);
    assert_eq!(w.running("shop/web").len(), 1);
    eventually("the word of the image", || (printed(&w, "one") == 1).then_some(()));
}
