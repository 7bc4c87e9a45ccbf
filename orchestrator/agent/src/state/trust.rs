//! What the node believes, on disk: raw statements, verified again each time they are read.
//!
//! Two files by how often they change: `anchors` (charters and bundles, by the day) and `heartbeat` (status and what hangs
//! on it, every few seconds). Each may be a step behind the other after a crash: the vault sends the rest again.

use super::file::{StateError, load_required, save};
use holdfast_orchestrator_core::verify::{Before, NodeTrust, Saved};
use holdfast_types::{Digest, Millis};
use holdfast_wire::note::Checkpoint;
use holdfast_wire::v1::Statement;
use std::path::{Path, PathBuf};

/// STORED: `anchors`.
#[derive(Clone, PartialEq, prost::Message)]
struct RawAnchors {
    #[prost(bytes = "vec", tag = "1")]
    anchor: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    charters: Vec<Statement>,
    #[prost(message, repeated, tag = "3")]
    bundles: Vec<Statement>,
    #[prost(message, optional, tag = "4")]
    before: Option<RawBefore>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawBefore {
    #[prost(message, optional, tag = "1")]
    revocations: Option<Statement>,
    #[prost(message, repeated, tag = "2")]
    bundles: Vec<Statement>,
}

/// STORED: `heartbeat`.
#[derive(Clone, PartialEq, prost::Message)]
struct RawHeartbeat {
    #[prost(message, optional, tag = "1")]
    status: Option<Statement>,
    #[prost(message, optional, tag = "2")]
    revocations: Option<Statement>,
    #[prost(message, optional, tag = "3")]
    checkpoint: Option<RawCheckpoint>,
    #[prost(uint64, tag = "4")]
    epoch_floor: u64,
    #[prost(int64, tag = "5")]
    time_floor_ms: i64,
    /// 0 in files that were written before there was a second era.
    #[prost(uint64, tag = "6")]
    era: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawCheckpoint {
    #[prost(string, tag = "1")]
    origin: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(bytes = "vec", tag = "3")]
    root: Vec<u8>,
}

/// The two files.
#[derive(Debug)]
pub struct TrustFiles {
    anchors: PathBuf,
    heartbeat: PathBuf,
}

impl TrustFiles {
    /// In the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self { anchors: root.join("anchors"), heartbeat: root.join("heartbeat") }
    }
    /// Believes again what was kept.
    pub fn load(&self) -> Result<NodeTrust, StateError> {
        let a: RawAnchors = load_required(&self.anchors)?;
        let h: RawHeartbeat = load_required(&self.heartbeat)?;
        let anchor = Digest::from_slice(&a.anchor).ok_or_else(|| StateError::Corrupt(self.anchors.clone()))?;
        let checkpoint = h.checkpoint.map(|c| {
            let root = Digest::from_slice(&c.root).ok_or_else(|| StateError::Corrupt(self.heartbeat.clone()))?;
            Ok(Checkpoint { origin: c.origin, size: c.size, root })
        });
        let saved = Saved {
            anchor,
            charters: a.charters,
            bundles: a.bundles,
            status: h.status,
            revocations: h.revocations,
            checkpoint: checkpoint.transpose()?,
            epoch_floor: h.epoch_floor,
            time_floor: Millis(h.time_floor_ms),
            heartbeat_era: h.era.max(1),
            before: a.before.and_then(|b| Some(Before { revocations: b.revocations?, bundles: b.bundles })),
        };
        NodeTrust::rebuild(&saved)
            .map_err(|e| StateError::Disbelieved { path: self.anchors.clone(), reason: e.to_string() })
    }
    /// Keeps charters and bundles of `trust`.
    pub fn save_anchors(&self, trust: &NodeTrust) -> Result<(), StateError> {
        let s = trust.saved();
        let before = s.before.map(|b| RawBefore { revocations: Some(b.revocations), bundles: b.bundles });
        let (anchor, charters, bundles) = (s.anchor.to_vec(), s.charters, s.bundles);
        save(&self.anchors, &RawAnchors { anchor, charters, bundles, before })
    }
    /// Keeps what changes with the status.
    pub fn save_heartbeat(&self, trust: &NodeTrust) -> Result<(), StateError> {
        let s = trust.saved();
        let raw = RawHeartbeat {
            status: s.status,
            revocations: s.revocations,
            checkpoint: s.checkpoint.map(|c| RawCheckpoint { origin: c.origin, size: c.size, root: c.root.to_vec() }),
            epoch_floor: s.epoch_floor,
            time_floor_ms: s.time_floor.0,
            era: s.heartbeat_era,
        };
        save(&self.heartbeat, &raw)
    }
    /// Keeps everything.
    pub fn save(&self, trust: &NodeTrust) -> Result<(), StateError> {
        self.save_anchors(trust)?;
        self.save_heartbeat(trust)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::golden;

    #[test]
    fn what_a_node_believes_is_stored_as_it_always_was() {
        let statement = |t: &str| Statement { payload: vec![1, 2], r#type: t.into(), sigs: Vec::new() };
        let before = RawBefore { revocations: Some(statement("r")), bundles: vec![statement("a")] };
        let anchors = RawAnchors {
            anchor: vec![9; 32],
            charters: vec![statement("c")],
            bundles: vec![statement("b")],
            before: Some(before),
        };
        golden::holds("anchors", &anchors);
        let heartbeat = RawHeartbeat {
            status: Some(statement("s")),
            revocations: Some(statement("r")),
            checkpoint: Some(RawCheckpoint { origin: "holdfast/x/1".into(), size: 5, root: vec![8; 32] }),
            epoch_floor: 4,
            time_floor_ms: 1000,
            era: 2,
        };
        golden::holds("heartbeat", &heartbeat);
    }
}
