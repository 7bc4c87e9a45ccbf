//! The arithmetic of a service's next step: how many tasks to give up, to replace and to place.
//!
//! It looks at counts alone, never at tasks or nodes.

use super::service::Service;
use super::words::{Order, Wanted};

/// The numbers of a running service, from which its next step follows.
pub(super) struct Balance {
    replicas: u32,
    parallelism: u32,
    /// Two tasks may stand for one replica while it is being replaced.
    start_first: bool,
    /// Tasks that are to stay, and those of them that run.
    keep: u32,
    keep_running: u32,
    /// Tasks to replace.
    stale: u32,
    held: u32,
    stopping: u32,
}

impl Balance {
    pub(super) fn of(service: &Service, w: &Wanted) -> Self {
        let p = service.progress();
        let (kept_old, stale_old) = if p.halted { (p.outdated, 0) } else { (0, p.outdated) };
        Self {
            replicas: w.replicas,
            parallelism: if w.update.parallelism == 0 { w.replicas.max(1) } else { w.update.parallelism },
            // The order is about versions, until the last task of the old one has ended; a task that only moves starts
            // elsewhere first, if two may exist at all.
            start_first: !w.exclusive && (w.update.order == Order::StartFirst || stale_old == 0 && !service.retiring()),
            keep: p.running + p.starting + kept_old,
            keep_running: p.running + kept_old,
            stale: p.displaced + stale_old,
            held: p.held,
            stopping: p.stopping,
        }
    }

    pub(super) fn starts_first(&self) -> bool {
        self.start_first
    }
    /// Live tasks beyond the replicas.
    pub(super) fn spare(&self) -> u32 {
        self.live().saturating_sub(self.replicas)
    }
    fn live(&self) -> u32 {
        self.keep + self.stale
    }
    /// Tasks on the way up.
    fn rising(&self) -> u32 {
        self.keep - self.keep_running + self.held
    }

    /// Places to give up among those that would otherwise stay.
    pub(super) fn surplus(&self) -> u32 {
        (self.keep + self.held).saturating_sub(self.replicas)
    }

    /// Stale tasks to stop now.
    pub(super) fn retire(&self) -> u32 {
        if self.start_first {
            return (self.stale + self.keep_running).saturating_sub(self.replicas).min(self.stale);
        }
        let gap = self.replicas.saturating_sub(self.live() + self.held + self.stopping);
        let in_motion = self.rising() + self.stopping + gap;
        self.parallelism.saturating_sub(in_motion).max(self.spare()).min(self.stale)
    }

    /// LAW: tasks never outnumber the replicas by more than the parallelism, and those of an exclusive service not at
    /// all (`there_are_never_more_tasks_than_replicas_and_surge`).
    pub(super) fn place(&self) -> u32 {
        let need = self.replicas.saturating_sub(self.keep + self.held);
        let all = self.live() + self.held + self.stopping;
        if !self.start_first {
            return need.min(self.replicas.saturating_sub(all));
        }
        let missing = self.replicas.saturating_sub(self.live() + self.held);
        let ahead = self.parallelism.saturating_sub(self.rising());
        need.min(missing.max(ahead)).min((self.replicas.saturating_add(self.parallelism)).saturating_sub(all))
    }
}
