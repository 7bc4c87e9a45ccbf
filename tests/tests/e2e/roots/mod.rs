//! The root of every certificate is replaced under a cluster that works: nothing that runs notices.

mod age;
mod bar;
pub mod given;
mod offline;
mod pairs;
mod phases;
mod quiet;
mod refusing;
mod running;
pub mod served;
mod sweep;
mod voters;

use crate::world::{World, eventually};
use serde_json::Value;

/// What `root status` says.
pub fn roots(w: &World) -> Value {
    w.json(&["root", "status"])
}

/// The root that signs, in hex.
pub fn signer(w: &World) -> String {
    roots(w)["signer"].as_str().unwrap().to_owned()
}

/// Waits until no rotation is under way; what `root status` says then.
pub fn stable(w: &World) -> Value {
    eventually("the rotation to end", || {
        let v = roots(w);
        let done = v["phase"] == "stable" && v["target"] == "";
        done.then_some(v)
    })
}

/// Waits until the rotation is in this phase.
pub fn phase(w: &World, phase: &str) -> Value {
    eventually(&format!("the phase {phase}"), || {
        let v = roots(w);
        (v["phase"] == phase).then_some(v)
    })
}

/// How many roots are trusted.
pub fn trusted(v: &Value) -> usize {
    v["trusted"].as_array().unwrap().len()
}
