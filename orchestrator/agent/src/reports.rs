//! What became of each task, for all who want to know: one entry a grant, the newest state only.
//!
//! Bounded by the tasks that the node runs: an entry leaves once its task is over and the vault has said that it knows.
//! Never holds container output.

use holdfast_types::GrantId;
use holdfast_wire::tasks::is_over;
use holdfast_wire::v1::{HeldTask, TaskReport};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

struct Entry {
    report: TaskReport,
    task_gen: u64,
    revision: u64,
}

/// The board that tasks write to and streams read from.
pub struct Reports {
    entries: Mutex<BTreeMap<GrantId, Entry>>,
    revision: watch::Sender<u64>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { entries: Mutex::default(), revision: watch::Sender::new(0) }
    }
}

impl Reports {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<GrantId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Writes the newest state of the grant `id`; the same again is no news, and a task that is over stays over.
    pub fn put(&self, id: GrantId, task_gen: u64, report: TaskReport) {
        let mut entries = self.entries();
        let known = entries.get(&id).is_some_and(|e| is_over(&e.report.state) || e.report == report);
        if known {
            return;
        }
        self.revision.send_modify(|r| *r += 1);
        let revision = *self.revision.borrow();
        entries.insert(id, Entry { report, task_gen, revision });
    }
    /// True if there is an entry for the grant `id`.
    pub fn knows(&self, id: &GrantId) -> bool {
        self.entries().contains_key(id)
    }
    /// The tasks, as a session begins with them.
    pub fn held(&self) -> Vec<HeldTask> {
        let held = |(id, e): (&GrantId, &Entry)| HeldTask {
            grant_id: id.to_vec(),
            task_id: e.report.task_id.clone(),
            task_gen: e.task_gen,
            state: e.report.state.clone(),
        };
        self.entries().iter().map(held).collect()
    }
    /// A reader that has seen nothing yet.
    pub fn reader(&self) -> Reader {
        Reader { seen: 0, changes: self.revision.subscribe(), in_flight: BTreeMap::new() }
    }
    /// Forgets the grant `id` if it is over and nothing newer than `revision` is known of it.
    fn forget(&self, id: &GrantId, revision: u64) -> bool {
        let mut entries = self.entries();
        let done = entries.get(id).is_some_and(|e| is_over(&e.report.state) && e.revision <= revision);
        done && entries.remove(id).is_some()
    }
}

/// One stream's view of the board.
pub struct Reader {
    seen: u64,
    changes: watch::Receiver<u64>,
    /// By grant: the revision sent last, and how many reports of it are not acknowledged.
    in_flight: BTreeMap<GrantId, (u64, u32)>,
}

impl Reader {
    /// Waits until there is something that this reader has not seen.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        if self.changes.wait_for(|r| *r > seen).await.is_err() {
            // The board is gone: the agent is ending.
            std::future::pending::<()>().await;
        }
    }
    /// What this reader has not seen; the first time, everything.
    pub fn take(&mut self, board: &Reports) -> Vec<TaskReport> {
        let entries = board.entries();
        let news: Vec<_> = entries.iter().filter(|(_, e)| e.revision > self.seen).collect();
        self.seen = news.iter().map(|(_, e)| e.revision).fold(self.seen, u64::max).max(*board.revision.borrow());
        for (id, e) in &news {
            let sent = self.in_flight.entry(**id).or_default();
            *sent = (e.revision, sent.1 + 1);
        }
        news.into_iter().map(|(_, e)| e.report.clone()).collect()
    }
    /// The receiver has one report of the grant `id`; true if the task is over and now forgotten.
    pub fn acknowledged(&mut self, board: &Reports, id: &GrantId) -> bool {
        let Some((revision, left)) = self.in_flight.get_mut(id) else { return false };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        let revision = *revision;
        self.in_flight.remove(id);
        board.forget(id, revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const ID: GrantId = GrantId([1; 16]);

    fn report(state: &str) -> TaskReport {
        TaskReport { grant_id: ID.to_vec(), task_id: "shop.web.1".into(), state: state.into(), ..TaskReport::default() }
    }
    fn states(reports: &[TaskReport]) -> Vec<&str> {
        reports.iter().map(|r| r.state.as_str()).collect()
    }

    #[test]
    fn a_reader_gets_the_newest_state_once() {
        let board = Reports::default();
        let mut r = board.reader();
        assert!(r.changed().now_or_never().is_none());
        board.put(ID, 1, report("started"));
        board.put(ID, 1, report("running"));
        board.put(ID, 1, report("running"));
        assert!(r.changed().now_or_never().is_some());
        assert_eq!(states(&r.take(&board)), ["running"]);
        assert!(r.changed().now_or_never().is_none());
        assert!(r.take(&board).is_empty());
        assert_eq!(states(&board.reader().take(&board)), ["running"]);
    }

    #[test]
    fn an_acknowledgement_of_an_older_state_does_not_forget_the_end() {
        let board = Reports::default();
        let mut r = board.reader();
        board.put(ID, 1, report("running"));
        r.take(&board);
        board.put(ID, 1, report("stopped"));
        assert!(!r.acknowledged(&board, &ID));
        assert!(board.knows(&ID));
        r.take(&board);
        assert!(r.acknowledged(&board, &ID));
        assert!(!board.knows(&ID));
    }

    #[test]
    fn what_is_over_stays_over() {
        let board = Reports::default();
        board.put(ID, 1, report("failed"));
        board.put(ID, 1, report("running"));
        assert_eq!(states(&board.reader().take(&board)), ["failed"]);
    }
}
