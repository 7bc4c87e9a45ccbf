//! Grants, and what was refused of them.

use holdfast_types::{Digest, GrantId, MandateId, Millis, NodeId, OrchId, ServiceRef, TaskId};
use serde::{Deserialize, Serialize};

/// Where a grant is in its life (protocol, life of a grant).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantState {
    /// Committed, not yet reported as started.
    Issued,
    /// Its node reports the task.
    Running,
    /// Taken back; the node has not confirmed yet.
    Revoked,
    /// Over.
    Ended,
    /// Never started in time.
    Lapsed,
}
impl GrantState {
    /// Lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Running => "running",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
            Self::Lapsed => "lapsed",
        }
    }
    /// True while the grant lets something run.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Issued | Self::Running)
    }
}

/// A grant as the registry keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantRow {
    /// The service.
    pub service: ServiceRef,
    /// Its spec version.
    pub version: u64,
    /// What of its spec a running task would notice: versions that agree in it are the same work.
    pub template: Digest,
    /// The node.
    pub node: NodeId,
    /// The task.
    pub task: TaskId,
    /// Its incarnation.
    pub task_gen: u64,
    /// Who asked.
    pub orch: OrchId,
    /// Under which mandate.
    pub mandate: MandateId,
    /// Secret names and versions that were boxed.
    pub secrets: Vec<(String, u64)>,
    /// `H(payload)`.
    pub sha256: Digest,
    /// Its leaf.
    pub leaf: u64,
    /// When.
    pub issued: Millis,
    /// May be started until.
    pub start_before: Millis,
    /// Runs until, unless extended.
    pub lease_until: Millis,
    /// Only the vault may stop it, not its orchestrator.
    pub protected: bool,
    /// Length of the lease at each extension, milliseconds.
    pub life_ms: i64,
    /// After its lease the task may go on for, milliseconds.
    pub grace_ms: i64,
    /// It must be the only one in its slot.
    pub exclusive: bool,
    /// Taken back when its node is quarantined.
    pub sensitive: bool,
    /// When its lease was last not extended though it was time; it is asked again a quarter of a lease later.
    pub held_back: Millis,
    /// Where it is in its life.
    pub state: GrantState,
    /// As last reported.
    pub task_state: String,
    /// As last reported.
    pub exit_code: i32,
    /// As last reported.
    pub detail: String,
    /// As last reported.
    pub restarts: u32,
    /// When it stopped being live.
    pub over: Option<Millis>,
}

/// What one orchestrator was refused in one minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Denials {
    /// Which minute.
    pub minute: i64,
    /// Refusals with a leaf of their own.
    pub written: u32,
    /// Refusals without.
    pub untold: u64,
    /// When it last met the end of a budget.
    pub budget_hit: Option<Millis>,
}

impl GrantRow {
    /// Nothing runs under it after this, whoever is out of reach.
    pub fn ends(&self) -> Millis {
        Millis(self.lease_until.0.saturating_add(self.grace_ms))
    }
    /// When a quarter of the lease is over: time to extend it.
    pub(crate) fn quarter_over(&self) -> Millis {
        Millis(self.lease_until.0.saturating_sub(self.life_ms / 4 * 3))
    }
    /// Its whole lease anew, from `now`.
    pub(crate) fn extended(&self, id: &GrantId, now: Millis) -> (GrantId, Millis) {
        (*id, Millis(now.0.saturating_add(self.life_ms)))
    }
    /// The task may still run: it was not reported over, and its lease and grace do not say so.
    pub fn may_run(&self) -> bool {
        self.state.is_live() || self.state == GrantState::Revoked
    }
}

impl super::State {
    /// A grant.
    pub fn grant(&self, id: &GrantId) -> Option<&GrantRow> {
        self.grants.get(id)
    }
    /// All grants that the registry still keeps.
    pub fn grants(&self) -> impl Iterator<Item = (&GrantId, &GrantRow)> {
        self.grants.iter()
    }
    /// The last incarnation of a task; 0 if it never had one.
    pub fn last_gen(&self, task: &TaskId) -> u64 {
        let row = task.service().ok().and_then(|s| self.services.get(&s));
        row.map_or(0, |r| r.last_gen(task.slot()))
    }
    /// Orchestrators that met the end of a budget within the last hour.
    pub fn over_budget(&self, now: Millis) -> impl Iterator<Item = &OrchId> {
        let lately = move |t: Millis| now.since(t) < std::time::Duration::from_secs(3600);
        self.denials.iter().filter(move |(_, d)| d.budget_hit.is_some_and(lately)).map(|(o, _)| o)
    }
    /// Grants on one node that are not over.
    pub fn grants_of_node<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = (&'a GrantId, &'a GrantRow)> + use<'a> {
        self.index.by_node.get(node).into_iter().flatten().filter_map(|id| self.grants.get_key_value(id))
    }
    /// Grants of one task that are not over.
    pub fn grants_of_task<'a>(&'a self, task: &TaskId) -> impl Iterator<Item = &'a GrantRow> + use<'a> {
        self.index.by_task.get(task).into_iter().flatten().filter_map(|id| self.grants.get(id))
    }
    /// Grants of one service that are not over.
    pub fn grants_of_service<'a>(
        &'a self,
        service: &ServiceRef,
    ) -> impl Iterator<Item = (&'a GrantId, &'a GrantRow)> + use<'a> {
        self.index.by_service.get(service).into_iter().flatten().filter_map(|id| self.grants.get_key_value(id))
    }
}
