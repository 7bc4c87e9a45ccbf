//! Grants as the vault's directory shows them.

use holdfast_types::{Digest, Millis, NodeId, TaskId};
use holdfast_wire::v1::GrantView;

/// Where a grant is in its life (protocol, life of a grant).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantState {
    Issued,
    Running,
    Revoked,
    Ended,
    Lapsed,
}

/// A grant of the directory.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) task: TaskId,
    pub(super) version: u64,
    pub(super) node: NodeId,
    pub(super) task_gen: u64,
    pub(super) state: GrantState,
    /// As its node reported it last; empty if it never did.
    pub(super) task_state: String,
    pub(super) exit_code: i32,
    pub(super) issued: Millis,
    /// What of its spec makes it the work it is, as the vault says: versions come and go.
    pub(super) template: Option<Digest>,
    /// Only the vault's word ends it.
    pub(super) protected: bool,
}

impl Grant {
    pub(super) fn read(v: &GrantView) -> Option<Self> {
        let state = match v.state.as_str() {
            "issued" => GrantState::Issued,
            "running" => GrantState::Running,
            "revoked" => GrantState::Revoked,
            "ended" => GrantState::Ended,
            "lapsed" => GrantState::Lapsed,
            _ => return None,
        };
        Some(Self {
            task: TaskId::parse(&v.task_id).ok()?,
            version: v.version,
            node: NodeId::parse(&v.node_id).ok()?,
            task_gen: v.task_gen,
            state,
            task_state: v.task_state.clone(),
            exit_code: v.exit_code,
            issued: Millis(v.issued_at_ms),
            template: Digest::from_slice(&v.template),
            protected: v.protected,
        })
    }
    pub(super) fn is_of(&self, task: &TaskId) -> bool {
        self.task == *task
    }
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, GrantState::Issued | GrantState::Running)
    }
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, GrantState::Ended | GrantState::Lapsed)
    }
    pub(super) fn failed(&self) -> bool {
        matches!(self.task_state.as_str(), "failed" | "refused") || self.exit_code != 0
    }
}
