//! A root that has grown old is replaced without an order.

use super::{signer, trusted};
use crate::input::with_clock;
use crate::world::{World, eventually};
use serde_json::Value;

/// Past half of a root's life; everything else of the cluster has ended long before.
const LATER: &str = "+1900d";

#[test]
fn a_root_is_replaced_by_itself_when_half_of_its_life_is_over() {
    let mut w = World::founded();
    let before = signer(&w);
    w.kill_vault();
    w.start_vault_with(|name| with_clock(name, LATER));
    w.unlock();
    let status = || -> Option<Value> {
        let mut tool = with_clock("holdfast", LATER);
        tool.args(["root", "status", "--json"]).env("HOLDFAST_HOME", w.path("home"));
        serde_json::from_slice(&tool.output().unwrap().stdout).ok().filter(|v: &Value| v.get("phase").is_some())
    };
    let done = eventually("another root to have taken over", || {
        status().filter(|v| v["phase"] == "stable" && v["signer"] != before.as_str())
    });
    assert_eq!(trusted(&done), 1, "{done}");
    let end = done["trusted"][0]["not_after"].as_str().unwrap().to_owned();
    assert!(end.as_str() > status().unwrap()["since"].as_str().unwrap(), "the new root has expired: {end}");
}
