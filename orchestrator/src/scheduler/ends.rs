//! How tasks end, and when their places are filled again.

use super::Scheduler;
use super::grants::{Grant, GrantState};
use super::retries::{Due, LONGEST, wait_after};
use holdfast_orchestrator_core::plan::{Event, Retry};
use holdfast_types::{Millis, NodeId, ServiceRef, TaskId};
use holdfast_wire::tasks::{DONE, restarts};

impl Scheduler {
    /// The task is over; `g` is its grant as it ended, `None` if the vault has forgotten it.
    pub(super) fn end(&mut self, now: Millis, task: &TaskId, g: Option<&Grant>) {
        let failure = g.is_some_and(Grant::failed);
        let (again_by_policy, halts) =
            self.work_of(task).map_or((true, true), |v| (restarts(&v.spec, failure), v.failure_halts()));
        let Some(t) = self.remove_task(task) else { return };
        if t.running_since.is_some_and(|since| now.since(since) >= LONGEST) {
            self.failures.remove(task);
        }
        let taken_back = t.stop || (t.released && !t.refused);
        match g {
            // It ended by itself, or never began.
            Some(g) if g.is_over() && !taken_back => {
                let refused = t.refused || g.task_state == "refused";
                if g.task_state == "refused" && !t.refused {
                    self.deny(now, &t.service, &t.node, "its node refused it", &[]);
                }
                let again = g.task_state != DONE && (again_by_policy || refused || g.state == GrantState::Lapsed);
                tracing::info!(%task, node = %t.node, exit_code = g.exit_code, state = %g.task_state, again, "task ended");
                self.planner.apply(ended(task, &t.node, failure && halts, Retry::Later));
                if again {
                    self.retry_later(now, task);
                }
            }
            Some(_) if t.refused => {
                self.planner.apply(ended(task, &t.node, halts, Retry::Later));
                self.retry_later(now, task);
            }
            Some(_) | None => self.planner.apply(ended(task, &t.node, false, Retry::Now)),
        }
    }

    /// Keeps the places of tasks that have done their work and are not to be started again.
    pub(super) fn hold_what_is_done(&mut self, name: &ServiceRef) {
        let done = self.services.get(name).map(|s| s.done(name)).unwrap_or_default();
        for task in done.into_iter().filter(|task| !self.tasks.contains_key(task)) {
            self.planner.apply(Event::Hold(task));
        }
    }

    /// The place of `task` stays empty for a while: longer with each failure.
    pub(super) fn retry_later(&mut self, now: Millis, task: &TaskId) {
        let failures = self.failures.entry(task.clone()).or_default();
        *failures = failures.saturating_add(1);
        self.timers.add(now.plus(wait_after(*failures)), Due::Retry(task.clone()));
    }
}

pub(super) fn ended(task: &TaskId, node: &NodeId, failed: bool, retry: Retry) -> Event {
    Event::TaskEnded { task: task.clone(), node: node.clone(), failed, retry }
}
