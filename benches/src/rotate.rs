//! A rotation of the root under nodes that are connected, from the start of the CLI to its end, which is when it is finished.

use crate::fleet::{self, Fleet};
use crate::leaves::TO_BE_SIGNED;
use crate::line::{self, Goal, Line};
use crate::{Failed, floor};
use holdfast_pki::csr::Request;
use holdfast_transport::keys::PrivateKey;
use std::time::Instant;

pub const HOW_10K: &str = "`holdfast root rotate` under 10000 simulated nodes with an open mTLS session and stream each, in one process on the same \
     machine: each believes the new root, renews and connects anew; nodes / time until STABLE; beside: the signatures, \
     verifications and the new key that this takes a node on both sides, on all processors, without key exchange and disk";
pub const HOW_8: &str = "`holdfast root rotate` under 8 such nodes, from the start of the CLI to its end; beside: Docker Swarm's `docker swarm \
     ca --rotate` of 8 nodes on two processors, measured once";

/// What Docker Swarm took.
const SWARM_MS: f64 = 3_500.0;

pub fn ten_thousand() -> Result<Line, Failed> {
    const NODES: u32 = 10_000;
    let seconds = rotation(NODES as usize)?;
    Ok(Line { value: f64::from(NODES) / seconds, unit: "nodes/s", beside: alone()?, goal: Goal::AtLeast(300.0) })
}

pub fn eight() -> Result<Line, Failed> {
    Ok(Line { value: rotation(8)? * 1e3, unit: "ms", beside: SWARM_MS, goal: Goal::AtMost(1_500.0) })
}

/// Seconds from the order until it is finished.
fn rotation(nodes: usize) -> Result<f64, Failed> {
    let w = fleet::world()?;
    let fleet = Fleet::start(Fleet::join(&w, nodes)?)?;
    let before = w.json(&["root", "status"]);
    let start = Instant::now();
    w.ok(&["root", "rotate"]);
    let seconds = start.elapsed().as_secs_f64();
    let after = w.json(&["root", "status"]);
    fleet.all_renewed()?;
    let roots = after.get("trusted").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    if after.get("phase").is_none_or(|p| p != "stable") || roots != 1 || after.get("signer") == before.get("signer") {
        return Err(format!("the rotation is not finished: {after}").into());
    }
    line::say(&format!("  {nodes} nodes in {seconds:.2} s"));
    Ok(seconds)
}

/// The cryptography of one node's part in a rotation, a second: its request, its leaf, and a handshake with both sides'
/// chains. A request is parsed where a signature is verified: that is nearly all that it costs.
fn alone() -> Result<f64, Failed> {
    const VERIFICATIONS: usize = 8;
    const SIGNATURES: usize = 3;
    let signer = PrivateKey::generate()?;
    floor::a_second(|| {
        let csr = PrivateKey::generate()?.csr()?;
        for _ in 0..VERIFICATIONS {
            Request::parse(&csr)?;
        }
        for _ in 0..SIGNATURES {
            signer.sign(&TO_BE_SIGNED)?;
        }
        Ok(())
    })
}
