//! openraft's log store: an in-memory tail in front of the writer thread.
//!
//! Must never: return from `save_vote` or call back for `append` before the bytes are on disk, or show a hole.

use super::store::{Mark, Store, StoreError};
use super::writer::{Job, Writer};
use super::{Entry, LogId, Payload, Types, Vote, codec};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Bytes of recent entries kept in memory, so that applying and replicating them reads no disk: of those that are under way at
/// once, and some more. What a follower lags behind by is read from the store, which has the newest in memory too.
const TAIL: usize = 3 << 20;
/// Bytes that one read for replication returns at most (but for a single larger entry).
const READ: usize = 2 << 20;

/// The raft log of one voter. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    tail: Mutex<Tail>,
    writer: Writer,
}

/// What the log holds, of which the newest entries in memory.
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry the log holds, in memory or on disk.
    start: u64,
    /// Index up to which (exclusive) entries are on disk and may leave memory.
    durable: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

/// Memory that an entry takes, roughly.
pub(super) fn entry_bytes(e: &Entry) -> usize {
    64 + match &e.payload {
        Payload::Normal(b) => b.as_bytes().len(),
        Payload::Blank | Payload::Membership(_) => 64,
    }
}

fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |l| l.index.saturating_add(1))
}

impl Tail {
    /// Index of the first entry held in memory, or of the next one to come.
    fn first(&self) -> u64 {
        self.entries.front().map_or(next(self.last), |e| e.log_id.index)
    }

    fn push(&mut self, e: Entry) {
        if self.start >= next(self.last) {
            self.start = e.log_id.index;
        }
        self.bytes += entry_bytes(&e);
        self.last = Some(e.log_id);
        self.entries.push_back(e);
    }

    fn pop(&mut self, e: Option<Entry>) {
        self.bytes -= e.as_ref().map_or(0, entry_bytes);
    }

    /// Lets go of the oldest entries that are on disk, above the limit.
    fn trim(&mut self) {
        while self.bytes > TAIL && self.first() < self.durable {
            let e = self.entries.pop_front();
            self.pop(e);
        }
    }

    fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|e| e.log_id.index <= upto.index) {
            let e = self.entries.pop_front();
            self.pop(e);
        }
        self.purged = Some(upto);
        self.start = self.start.max(next(Some(upto)));
        self.last = self.last.max(Some(upto));
    }

    fn truncate(&mut self, after: Option<LogId>) {
        while self.entries.back().is_some_and(|e| e.log_id.index >= next(after)) {
            let e = self.entries.pop_back();
            self.pop(e);
        }
        self.last = self.last.min(after);
        self.durable = self.durable.min(next(after));
    }
}

impl LogStore {
    /// Opens the log in `store` and starts its writer.
    pub fn open(store: Store) -> Result<Self, StoreError> {
        let purged: Option<LogId> = store.mark(Mark::Purged)?;
        let start = store.first_entry(next(purged))?.unwrap_or(next(purged));
        let last = match store.log.last_key_value() {
            None => purged,
            Some(guard) => {
                let (key, value) = guard.into_inner()?;
                Some(codec::open_entry(&store.keys, index_of(&key)?, &value)?.log_id)
            }
        };
        let committed = store.mark::<Option<LogId>>(Mark::Committed)?.flatten();
        if committed > last {
            return Err(StoreError::CutOff { last: last.map(|l| l.index), committed: committed.map(|l| l.index) });
        }
        let vote = store.mark(Mark::Vote)?;
        let (entries, bytes, durable) = (VecDeque::new(), 0, next(last));
        let tail = Mutex::new(Tail { entries, bytes, last, purged, start, durable, vote, committed });
        let writer = Writer::start(store.clone()).map_err(|e| StoreError::Stopped(e.to_string()))?;
        Ok(Self { inner: Arc::new(Inner { store, tail, writer }) })
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.inner.tail()
    }

    /// Entries of `range` that the log holds, at most about `limit` bytes but never none where there is one.
    fn read(&self, range: Range<u64>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (range, first, recent) = {
            let t = self.tail();
            let range = range.start.max(t.start)..range.end.min(next(t.last));
            // They lie in the order of their indexes: all are many, and what is asked for is mostly the last of them.
            let from = t.entries.partition_point(|e| e.log_id.index < range.start);
            let asked = t.entries.iter().skip(from).take_while(|e| e.log_id.index < range.end);
            let recent: Vec<Entry> = asked.cloned().collect();
            (range, t.first(), recent)
        };
        let (mut out, mut bytes) = (Vec::new(), 0);
        let older = (range.start..range.end.min(first)).map(|i| self.read_disk(i));
        for e in older.chain(recent.into_iter().map(|e| Ok(Some(e)))) {
            let Some(e) = e.transpose() else { continue };
            let e = e?;
            bytes += entry_bytes(&e);
            if bytes > limit && !out.is_empty() {
                break;
            }
            out.push(e);
        }
        Ok(out)
    }

    /// An entry from disk; `None` only if it was purged meanwhile.
    fn read_disk(&self, index: u64) -> Result<Option<Entry>, StoreError> {
        match self.inner.store.log.get(index.to_be_bytes())? {
            Some(v) => codec::open_entry(&self.inner.store.keys, index, &v).map(Some),
            None if index < self.tail().start => Ok(None),
            None => Err(StoreError::Corrupt { keyspace: "log", index }),
        }
    }

    /// Runs a job that must be on disk before going on.
    async fn durably(&self, job: impl FnOnce(super::writer::Done) -> Job) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        let done = Box::new(move |r| {
            if tx.send(r).is_err() {
                tracing::debug!("nobody waits for this write any more");
            }
        });
        self.inner.writer.push(job(done))?;
        rx.await.map_err(|_| io::Error::other(StoreError::Stopped("the writer has ended".into())))?
    }
}

impl Inner {
    /// A panic under this lock is impossible short of memory exhaustion; the tail would still be whole.
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Index of the first entry from `from` on. What was purged is not looked at: until it is compacted, the engine would read all
    /// of it.
    pub(super) fn first_entry(&self, from: u64) -> Result<Option<u64>, StoreError> {
        let first = self.log.range(from.to_be_bytes()..).next();
        first.map(|guard| index_of(&guard.key()?)).transpose()
    }
}

pub(super) fn index_of(key: &[u8]) -> Result<u64, StoreError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Corrupt { keyspace: "log", index: 0 })
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(s) => *s,
        Bound::Excluded(s) => s.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(e) => e.saturating_add(1),
        Bound::Excluded(e) => *e,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.read(bounds(&range), usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(self.read(start..end, READ)?)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.tail().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let t = self.tail();
        Ok(LogState { last_purged_log_id: t.purged, last_log_id: t.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let v = *vote;
        self.durably(|done| Job::Vote(v, done)).await?;
        self.tail().vote = Some(v);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.tail().committed = committed;
        self.inner.writer.push(Job::Committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let end = entries.last().map_or(0, |e| e.log_id.index.saturating_add(1));
        {
            let mut t = self.tail();
            entries.iter().cloned().for_each(|e| t.push(e));
            t.trim();
        }
        let inner = Arc::downgrade(&self.inner);
        let done = Box::new(move |result: io::Result<()>| {
            if let (Ok(()), Some(inner)) = (&result, inner.upgrade()) {
                let mut t = inner.tail();
                t.durable = t.durable.max(end);
            }
            callback.io_completed(result);
        });
        self.inner.writer.push(Job::Append(entries, done))
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> io::Result<()> {
        let (from, to) = (next(after), next(self.tail().last));
        self.durably(|done| Job::Truncate { from, to, done }).await?;
        self.tail().truncate(after);
        Ok(())
    }

    /// Takes effect in memory at once; the disk follows, and a failure there stops the writer.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let from = {
            let mut t = self.tail();
            let from = next(t.purged);
            t.purge(upto);
            from
        };
        self.inner.writer.push(Job::Purge { from, upto })
    }
}
