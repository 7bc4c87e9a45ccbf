//! The words in which a node tells of its tasks: vault, orchestrator, agent and tool must read them alike.

use crate::v1::Spec;

/// It ended by itself, and its spec says not to start it again.
pub const DONE: &str = "done";

/// It was stopped by order.
pub const STOPPED: &str = "stopped";

/// True for states after which nothing more comes.
pub fn is_over(state: &str) -> bool {
    matches!(state, "failed" | "refused") || state == STOPPED || state == DONE
}

/// Whether a task that ended by itself is started again.
pub fn restarts(spec: &Spec, failed: bool) -> bool {
    match spec.restart.as_str() {
        "never" => false,
        "on-failure" => failed,
        _ => true,
    }
}
