//! What a node remembers of the orders it has followed, so that none is followed twice or after a newer one.
//!
//! The shell persists this with fsync *before* a task starts (check 10); it must never be rolled back.

use super::assign::Accepted;
use super::refusal::{Refusal, require};
use holdfast_types::{GrantId, Millis};
use holdfast_wire::v1::Grant;
use std::collections::{BTreeMap, BTreeSet};

/// The highest fence seen for a namespace, and whose it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Rises with every change of holder.
    pub fence: u64,
    /// The orchestrator that held the lease under it.
    pub orch_id: String,
}

/// Consumed grants, generations and fences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskMemory {
    /// Grants already used, with the time after which none of them could start anyway.
    pub consumed: BTreeMap<GrantId, Millis>,
    /// Highest `task_gen` started, by task id.
    pub last_gen: BTreeMap<String, u64>,
    /// Highest fence of a verified grant, by namespace.
    pub max_fence: BTreeMap<String, Fence>,
    /// Services, `namespace/service`, whose last verified spec was sensitive: one deployer alone cannot sign that away.
    pub sensitive: BTreeSet<String>,
}

impl TaskMemory {
    /// Remembers an accepted assignment; persist the result before anything starts.
    pub fn consume(&mut self, a: &Accepted) {
        let g = &a.grant;
        self.consumed.insert(a.grant_id, Millis(g.start_before_ms));
        self.last_gen.insert(g.task_id.clone(), g.task_gen);
        self.max_fence.insert(g.namespace.clone(), Fence { fence: g.fence, orch_id: g.orch_id.clone() });
        let service = format!("{}/{}", g.namespace, g.service);
        if a.spec.sensitive {
            self.sensitive.insert(service);
        } else {
            self.sensitive.remove(&service);
        }
    }
    /// In a new era generations and fences count anew, from what its vault remembers; grants of the era before are refused by
    /// their era, and none that was used comes back.
    pub fn begin_era(&mut self) {
        self.last_gen.clear();
        self.max_fence.clear();
    }
    pub(crate) fn is_sensitive(&self, namespace: &str, service: &str) -> bool {
        self.sensitive.contains(&format!("{namespace}/{service}"))
    }
    /// Forgets grants that are refused for their age anyway. `time_floor` is the Status's, never the local clock:
    /// a clock set forward and back again must not bring a consumed grant back to life.
    pub fn forget_expired(&mut self, time_floor: Millis) {
        self.consumed.retain(|_, start_before| *start_before >= time_floor);
    }
    /// Check 5: never used, newer than what ran, from no older lease. `known` is the Status's fence for the namespace.
    pub(crate) fn check(&self, id: &GrantId, g: &Grant, known: u64) -> Result<(), Refusal> {
        require(!self.consumed.contains_key(id), 5, "grant-consumed", || format!("grant {id} was used before"))?;
        let last = self.last_gen.get(&g.task_id).copied().unwrap_or(0);
        require(g.task_gen > last, 5, "task-gen", || {
            format!("generation {} of {} is not newer than {last}", g.task_gen, g.task_id)
        })?;
        let max = self.max_fence.get(&g.namespace).map_or(known, |f| f.fence.max(known));
        require(g.fence >= max, 5, "fence", || format!("fence {} of {} is older than {max}", g.fence, g.namespace))
    }
}
