//! The one thread that writes the log: many jobs, one flush (group commit).
//!
//! Must never: call a job done before it is on disk, reorder jobs, or write anything after a failed write.

use super::store::{Flush, Mark, Store, StoreError};
use super::{Entry, LogId, Vote, codec};
use fjall::OwnedWriteBatch;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Called once with the outcome, when the job is on disk.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Something to write.
pub(super) enum Job {
    /// New entries.
    Append(Vec<Entry>, Done),
    /// The vote.
    Vote(Vote, Done),
    /// How far is committed; a hint that need not be flushed.
    Committed(Option<LogId>),
    /// Entries `from..to` go, from the end.
    Truncate { from: u64, to: u64, done: Done },
    /// Entries `from..=upto` go, from the start.
    Purge { from: u64, upto: LogId },
}

/// Bytes after which a group is written without waiting for more.
const GROUP: usize = 4 << 20;
/// How long a hint waits for something to be written along with: by itself it would be a write that nobody needs.
const HINT: Duration = Duration::from_millis(5);

/// The running thread. Dropping it writes what was asked for and ends it.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(store: Store) -> io::Result<Self> {
        let (jobs, rx) = channel();
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || run(&store, &rx))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job; an error if the thread is gone.
    pub(super) fn push(&self, job: Job) -> io::Result<()> {
        let sent = self.jobs.as_ref().map(|j| j.send(job));
        sent.and_then(Result::ok).ok_or_else(|| io::Error::other(StoreError::Stopped("the writer has ended".into())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the log writer ended by a panic");
        }
    }
}

fn run(store: &Store, jobs: &Receiver<Job>) {
    let mut held = None;
    let mut failed: Option<String> = None;
    while let Some(first) = held.take().or_else(|| jobs.recv().ok()) {
        let group = collect(first, jobs, &mut held);
        let result = match &failed {
            Some(why) => Err(why.clone()),
            None => write(store, &group).map_err(|e| e.to_string()),
        };
        if let (Err(why), None) = (&result, &failed) {
            tracing::error!(error = %why, "the log cannot be written; nothing more will be");
            failed = Some(why.clone());
        }
        for job in group {
            if let Job::Append(_, done) | Job::Vote(_, done) | Job::Truncate { done, .. } = job {
                done(result.clone().map_err(|why| io::Error::other(StoreError::Stopped(why))));
            }
        }
    }
}

/// Takes what waits behind `first` into one group. A removal is a group of its own: one batch must not name a key twice.
fn collect(first: Job, jobs: &Receiver<Job>, held: &mut Option<Job>) -> Vec<Job> {
    let mut bytes = size(&first);
    let mut group = vec![first];
    while group.first().is_some_and(joins) && bytes < GROUP {
        match behind(&group, jobs) {
            Some(job) if joins(&job) => {
                bytes += size(&job);
                group.push(job);
            }
            Some(job) => {
                *held = Some(job);
                break;
            }
            None => break,
        }
    }
    group
}

/// What waits behind `group`, or comes soon if nobody waits for the group.
fn behind(group: &[Job], jobs: &Receiver<Job>) -> Option<Job> {
    let only_hints = group.iter().all(|job| matches!(job, Job::Committed(_)));
    if only_hints { jobs.recv_timeout(HINT).ok() } else { jobs.try_recv().ok() }
}

fn joins(job: &Job) -> bool {
    matches!(job, Job::Append(..) | Job::Vote(..) | Job::Committed(_))
}

fn size(job: &Job) -> usize {
    match job {
        Job::Append(entries, _) => entries.iter().map(super::log::entry_bytes).sum(),
        Job::Vote(..) | Job::Committed(_) | Job::Truncate { .. } | Job::Purge { .. } => 0,
    }
}

fn write(store: &Store, group: &[Job]) -> Result<(), StoreError> {
    let only_hints = group.iter().all(|j| matches!(j, Job::Committed(_) | Job::Purge { .. }));
    let flush = if only_hints { Flush::Kernel } else { Flush::Sync };
    store.write(flush, |batch| {
        let (mut vote, mut committed) = (None, None);
        for job in group {
            match job {
                Job::Append(entries, _) => append(store, batch, entries)?,
                Job::Vote(v, _) => vote = Some(v),
                Job::Committed(c) => committed = Some(c),
                Job::Truncate { from, to, .. } => remove(store, batch, *from..*to),
                Job::Purge { from, upto } => {
                    store.put_mark(batch, Mark::Purged, upto)?;
                    remove(store, batch, *from..upto.index.saturating_add(1));
                }
            }
        }
        vote.map_or(Ok(()), |v| store.put_mark(batch, Mark::Vote, v))?;
        committed.map_or(Ok(()), |c| store.put_mark(batch, Mark::Committed, c))
    })
}

fn append(store: &Store, batch: &mut OwnedWriteBatch, entries: &[Entry]) -> Result<(), StoreError> {
    for e in entries {
        batch.insert(&store.log, e.log_id.index.to_be_bytes(), codec::seal_entry(&store.keys, e)?);
    }
    Ok(())
}

fn remove(store: &Store, batch: &mut OwnedWriteBatch, indexes: std::ops::Range<u64>) {
    indexes.for_each(|i| batch.remove(&store.log, i.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_hint_waits_for_what_is_written_next_and_nothing_else_waits() {
        let (tx, rx) = channel();
        let done = || -> Done { Box::new(|_: io::Result<()>| ()) };
        let collected = |first: Job| {
            let (begun, mut held) = (Instant::now(), None);
            let group = collect(first, &rx, &mut held);
            (group.len(), held.is_some(), begun.elapsed())
        };
        let (jobs, _, took) = collected(Job::Committed(None));
        assert!(jobs == 1 && took >= HINT, "it was written by itself after {took:?}");
        assert_eq!(collected(Job::Append(Vec::new(), done())).0, 1);
        tx.send(Job::Append(Vec::new(), done())).unwrap();
        tx.send(Job::Truncate { from: 1, to: 2, done: done() }).unwrap();
        let (jobs, is_held, _) = collected(Job::Committed(None));
        assert_eq!((jobs, is_held), (2, true), "a removal is a group of its own");
        // The log is let go of: what is there is written, and nothing more comes.
        drop(tx);
        assert_eq!(collected(Job::Committed(None)).0, 1);
    }
}
