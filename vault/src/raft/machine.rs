//! The border between the log and the vault's state: [`Machine`] is what the pure core implements, [`StateMachine`] what openraft drives.
//!
//! Must never: look into a command, or give a reply away before its entry has been applied.

use super::behind::Behind;
use super::proposer::Replies;
use super::snapshot::Carried;
use super::store::{Store, StoreError};
use super::{Batch, LogId, Payload, SnapshotMeta, StoredMembership, Types};
use futures::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// Why the machine cannot go on. Always fatal for this voter: its state would no longer be the others'.
#[derive(Debug, thiserror::Error)]
#[error("the state machine stopped: {0}")]
pub struct MachineError(pub String);

impl From<StoreError> for MachineError {
    fn from(e: StoreError) -> Self {
        Self(e.to_string())
    }
}

/// A replicated state in memory. `apply` must give the same state on every voter, on every version, for ever.
pub trait Machine: Send + Sync + 'static {
    /// What the proposer of a command gets once it has been applied.
    type Reply: Send + 'static;

    /// Applies one command of the entry at `index`, proposed in raft `term`. A refusal is a reply; an error stops the voter.
    fn apply(&mut self, index: u64, term: u64, command: &[u8]) -> Result<Self::Reply, MachineError>;

    /// Called once after the commands of an entry and before any of their replies.
    fn settle(&mut self) -> Result<(), MachineError>;

    /// What they left to be written, and could be made again by applying them again: it is written behind their replies, and
    /// before a snapshot that covers them counts. What is read of the machine meanwhile must not miss it.
    fn unwritten(&mut self) -> Option<Unwritten> {
        None
    }

    /// The state as it is between two entries.
    type Frozen: Frozen;

    /// The whole state. Holds up the next entry, so it only copies: encoding, sealing and writing are done elsewhere.
    fn snapshot(&self) -> Self::Frozen;

    /// Replaces the whole state by a snapshot's.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), MachineError>;
}

/// Writes what an entry left.
pub type Unwritten = Box<dyn FnOnce() -> Result<(), MachineError> + Send>;

/// A state that no longer changes, on its way into a snapshot.
pub trait Frozen: Send + Sync + 'static {
    /// Writes it as bytes. May take its time.
    fn encode_to<W: io::Write>(self, out: W) -> io::Result<()>;
}

impl Frozen for Vec<u8> {
    fn encode_to<W: io::Write>(self, mut out: W) -> io::Result<()> {
        out.write_all(&self)
    }
}

/// This voter no longer runs: it met a fatal error or was shut down. The process should exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this voter has stopped; see its log for the cause")]
pub struct Stopped;

/// The machine, shared between the log that changes it and the handlers that read it.
pub struct Shared<M>(Arc<RwLock<M>>);

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> std::fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl<M> Shared<M> {
    fn new(machine: M) -> Self {
        Self(Arc::new(RwLock::new(machine)))
    }

    /// Looks at the state as it is between two entries. Keep it short: entries wait.
    pub fn read<T>(&self, look: impl FnOnce(&M) -> T) -> Result<T, Stopped> {
        // A poisoned lock means that `apply` panicked half way: the state is worth nothing.
        self.0.read().map(|m| look(&m)).map_err(|_| Stopped)
    }

    fn write<T>(&self, change: impl FnOnce(&mut M) -> Result<T, MachineError>) -> io::Result<T> {
        let mut m = self.0.write().map_err(|_| io::Error::other(Stopped))?;
        change(&mut m).map_err(io::Error::other)
    }
}

/// Drives a [`Machine`] for openraft.
pub struct StateMachine<M: Machine> {
    shared: Shared<M>,
    store: Store,
    replies: Arc<Replies<M::Reply>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Commands applied since the last snapshot was begun: what a start would apply again.
    since_snapshot: Arc<AtomicU64>,
    behind: Behind,
}

impl<M: Machine> StateMachine<M> {
    /// Wraps an empty machine; openraft restores the snapshot in `store` and replays the log.
    pub fn new(machine: M, store: Store) -> Self {
        let (applied, membership) = (None, StoredMembership::default());
        let shared = Shared::new(machine);
        let (replies, since_snapshot, behind) = (Arc::default(), Arc::default(), Behind::default());
        Self { shared, store, replies, applied, membership, since_snapshot, behind }
    }

    /// The machine, for reading.
    pub fn shared(&self) -> Shared<M> {
        self.shared.clone()
    }

    pub(super) fn replies(&self) -> Arc<Replies<M::Reply>> {
        Arc::clone(&self.replies)
    }

    pub(super) fn since_snapshot(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.since_snapshot)
    }

    fn apply_batch(&self, id: LogId, batch: &Batch) -> io::Result<(Vec<M::Reply>, Option<Unwritten>)> {
        let commands = batch.commands().ok_or(StoreError::Corrupt { keyspace: "log", index: id.index })?;
        self.since_snapshot.fetch_add(commands.len() as u64, Ordering::Relaxed);
        self.shared.write(|m| {
            let replies: Result<Vec<_>, _> =
                commands.into_iter().map(|c| m.apply(id.index, id.leader_id.term, c)).collect();
            Ok((m.settle().and(replies)?, m.unwritten()))
        })
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl<M: Machine> RaftStateMachine<Types> for StateMachine<M> {
    type SnapshotData = Carried;
    type SnapshotBuilder = SnapshotBuilder<M::Frozen>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let (replies, unwritten) = match entry.payload {
                Payload::Blank => (Vec::new(), None),
                Payload::Normal(batch) => self.apply_batch(id, &batch)?,
                Payload::Membership(m) => {
                    self.membership = StoredMembership::new(Some(id), m);
                    (Vec::new(), None)
                }
            };
            self.applied = Some(id);
            if let Some(responder) = responder {
                self.replies.put(id.index, replies);
                responder.send(());
            }
            // The disk may be busy with the next entry: nobody waits for that, neither for a reply nor to look.
            if let Some(unwritten) = unwritten {
                self.behind.write(unwritten).await?;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<M::Frozen> {
        let written = self.behind.done().await;
        if let Err(e) = &written {
            tracing::error!(error = %e, "no snapshot is taken: what its entries left was not written");
        }
        let frozen = written.ok().and_then(|()| self.shared.read(Machine::snapshot).ok());
        self.since_snapshot.store(0, Ordering::Relaxed);
        SnapshotBuilder { frozen, meta: self.meta(), store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Carried) -> io::Result<()> {
        self.behind.done().await?;
        let (own, state) = blocking(move || snapshot.read()).await?;
        let meta = own.unwrap_or_else(|| meta.clone());
        self.shared.write(|m| m.restore(&state))?;
        self.since_snapshot.store(0, Ordering::Relaxed);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let store = self.store.clone();
        blocking(move || store.save_snapshot(&meta, &state)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TakenSnapshot>> {
        let store = self.store.clone();
        let found = blocking(move || store.snapshot_header()).await?;
        Ok(found.map(|h| Snapshot { meta: h.meta, snapshot: Carried::lying_in(self.store.clone()) }))
    }
}

/// A snapshot as openraft hands it around.
pub(super) type TakenSnapshot =
    Snapshot<openraft::alias::CommittedLeaderIdOf<Types>, u64, openraft::BasicNode, Carried>;

/// A state already copied out of the machine, to be encoded, sealed and written beside the running log.
pub struct SnapshotBuilder<F> {
    frozen: Option<F>,
    meta: SnapshotMeta,
    store: Store,
}

impl<F: Frozen> RaftSnapshotBuilder<Types> for SnapshotBuilder<F> {
    type SnapshotData = Carried;

    async fn build_snapshot(&mut self) -> io::Result<TakenSnapshot> {
        let (store, meta) = (self.store.clone(), self.meta.clone());
        let frozen = self.frozen.take().ok_or_else(|| io::Error::other(Stopped))?;
        let work = move || {
            let start = std::time::Instant::now();
            let bytes = store.save_encoded(&meta, |out| frozen.encode_to(out))?;
            let ms = start.elapsed().as_millis();
            tracing::info!(entry = meta.last_log_id.map(|l| l.index), bytes, ms, "a snapshot was taken");
            Ok::<_, StoreError>(())
        };
        blocking(work).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Carried::lying_in(self.store.clone()) })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> io::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}
