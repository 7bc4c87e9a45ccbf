//! Consumed grants, generations, fences and sensitive services on disk: what keeps a grant from being carried out twice.
//!
//! LAW: it is on disk before a task starts, and a missing or damaged file stops the agent instead of starting afresh
//! (`a_node_that_lost_its_memory_does_not_start`).

use super::file::{StateError, load_required, save};
use holdfast_orchestrator_core::verify::{Fence, TaskMemory};
use holdfast_types::{GrantId, Millis};
use std::path::{Path, PathBuf};

/// STORED: `memory`.
#[derive(Clone, PartialEq, prost::Message)]
struct RawMemory {
    #[prost(message, repeated, tag = "1")]
    consumed: Vec<RawConsumed>,
    #[prost(message, repeated, tag = "2")]
    generations: Vec<RawGeneration>,
    #[prost(message, repeated, tag = "3")]
    fences: Vec<RawFence>,
    #[prost(string, repeated, tag = "4")]
    sensitive: Vec<String>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawConsumed {
    #[prost(bytes = "vec", tag = "1")]
    grant_id: Vec<u8>,
    #[prost(int64, tag = "2")]
    start_before_ms: i64,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawGeneration {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(uint64, tag = "2")]
    task_gen: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawFence {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(uint64, tag = "2")]
    fence: u64,
    #[prost(string, tag = "3")]
    orch_id: String,
}

/// The file.
#[derive(Debug)]
pub struct MemoryFile(PathBuf);

impl MemoryFile {
    /// In the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self(root.join("memory"))
    }
    /// What is remembered. That there is nothing is an error: a joined node has always written it.
    pub fn load(&self) -> Result<TaskMemory, StateError> {
        let raw: RawMemory = load_required(&self.0)?;
        let corrupt = || StateError::Corrupt(self.0.clone());
        let consumed = raw.consumed.iter().map(|c| {
            let id = GrantId::from_slice(&c.grant_id).ok_or_else(corrupt)?;
            Ok((id, Millis(c.start_before_ms)))
        });
        Ok(TaskMemory {
            consumed: consumed.collect::<Result<_, StateError>>()?,
            last_gen: raw.generations.into_iter().map(|g| (g.task_id, g.task_gen)).collect(),
            max_fence: raw
                .fences
                .into_iter()
                .map(|f| (f.namespace, Fence { fence: f.fence, orch_id: f.orch_id }))
                .collect(),
            sensitive: raw.sensitive.into_iter().collect(),
        })
    }
    /// Keeps `m`; returns once it would survive a power cut.
    pub fn save(&self, m: &TaskMemory) -> Result<(), StateError> {
        let consumed = m.consumed.iter().map(|(id, at)| RawConsumed { grant_id: id.to_vec(), start_before_ms: at.0 });
        let generations = m.last_gen.iter().map(|(t, g)| RawGeneration { task_id: t.clone(), task_gen: *g });
        let fences = m.max_fence.iter().map(|(ns, f)| RawFence {
            namespace: ns.clone(),
            fence: f.fence,
            orch_id: f.orch_id.clone(),
        });
        let raw = RawMemory {
            consumed: consumed.collect(),
            generations: generations.collect(),
            fences: fences.collect(),
            sensitive: m.sensitive.iter().cloned().collect(),
        };
        save(&self.0, &raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn full() -> TaskMemory {
        let mut m = TaskMemory::default();
        m.consumed.insert(GrantId([7; 16]), Millis(1000));
        m.last_gen.insert("shop.web.1".into(), 3);
        m.max_fence.insert("shop".into(), Fence { fence: 9, orch_id: "orch-1".into() });
        m.sensitive.insert("shop/web".into());
        m
    }

    #[test]
    fn what_was_remembered_is_remembered_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(dir.path());
        file.save(&TaskMemory::default()).unwrap();
        assert_eq!(file.load().unwrap(), TaskMemory::default());
        file.save(&full()).unwrap();
        assert_eq!(MemoryFile::new(dir.path()).load().unwrap(), full());
    }

    #[test]
    fn the_memory_is_stored_as_it_always_was() {
        let dir = tempfile::tempdir().unwrap();
        MemoryFile::new(dir.path()).save(&full()).unwrap();
        let raw: RawMemory = load_required(&dir.path().join("memory")).unwrap();
        crate::state::golden::holds("memory", &raw);
    }

    #[test]
    fn a_node_that_lost_its_memory_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(dir.path());
        assert!(matches!(file.load(), Err(StateError::Missing(_))));
        file.save(&full()).unwrap();
        let whole = fs::read(dir.path().join("memory")).unwrap();
        fs::write(dir.path().join("memory"), &whole[..whole.len() - 9]).unwrap();
        assert!(matches!(file.load(), Err(StateError::Corrupt(_))));
    }
}
