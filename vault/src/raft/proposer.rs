//! Proposals: commands of many callers go into one raft entry, and each caller gets its own reply once that entry has been applied.
//!
//! Must never: propose twice what may already have been appended, or give a reply before the commit.

use super::{Batch, MAX_COMMAND, Machine, StateMachine, Types};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Commands in one entry.
const BATCH_COMMANDS: usize = 512;
/// Bytes in one entry, but for a single larger command. Far below a record's limit of 4 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Entries under way at once: one on its way to the disk, one being filled behind it.
const IN_FLIGHT: usize = 2;
/// Commands that may wait before callers are held up.
const QUEUE: usize = 4096;
/// How long a leader that is just settling in is waited for: a few election timeouts.
const SETTLE: Duration = Duration::from_secs(3);

type Raft<M> = openraft::Raft<Types, StateMachine<M>>;

/// Why a command has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another voter leads.
    #[error("this voter does not lead; ask voter {leader} at {address}")]
    NotLeader {
        /// The leader's voter id.
        leader: u64,
        /// Its peer address.
        address: String,
    },
    /// Nobody leads at the moment; nothing has been proposed.
    #[error("no voter leads at the moment; try again")]
    Unavailable,
    /// Leadership was lost while the command was under way: it may or may not take effect.
    #[error("leadership was lost while the command was under way; look whether it took effect before trying again")]
    Unknown,
    /// Longer than [`MAX_COMMAND`].
    #[error("the command is longer than {MAX_COMMAND} bytes")]
    TooLong,
    /// This voter met a fatal error or is shutting down: the process should exit.
    #[error("this voter has stopped; see its log for the cause")]
    Stopped,
}

/// Replies on their way from `apply` to the batch that waits for them, by log index.
pub(super) struct Replies<R>(Mutex<HashMap<u64, Vec<R>>>);

impl<R> Default for Replies<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Replies<R> {
    pub(super) fn put(&self, index: u64, replies: Vec<R>) {
        if !replies.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, replies);
        }
    }
    fn take(&self, index: u64) -> Vec<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&index).unwrap_or_default()
    }
}

struct Waiting<R> {
    command: Vec<u8>,
    reply: oneshot::Sender<Result<R, ProposeError>>,
}

/// Proposes commands to the log. Cheap to clone.
pub struct Proposer<R> {
    queue: mpsc::Sender<Waiting<R>>,
}

impl<R> Clone for Proposer<R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<R> std::fmt::Debug for Proposer<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proposer")
    }
}

impl<R: Send + 'static> Proposer<R> {
    /// Starts the task that fills entries. It ends when the last proposer is dropped.
    pub(super) fn start<M: Machine<Reply = R>>(raft: Raft<M>, replies: Arc<Replies<R>>) -> Self {
        let (queue, rx) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, replies, rx));
        Self { queue }
    }

    /// Proposes `command`; returns its reply once it is committed, on disk and applied.
    pub async fn propose(&self, command: Vec<u8>) -> Result<R, ProposeError> {
        if command.len() > MAX_COMMAND {
            return Err(ProposeError::TooLong);
        }
        let (reply, rx) = oneshot::channel();
        self.queue.send(Waiting { command, reply }).await.map_err(|_| ProposeError::Stopped)?;
        rx.await.unwrap_or(Err(ProposeError::Stopped))
    }
}

async fn run<M: Machine>(raft: Raft<M>, replies: Arc<Replies<M::Reply>>, mut queue: mpsc::Receiver<Waiting<M::Reply>>) {
    let mut in_flight = FuturesUnordered::new();
    let mut held = None;
    loop {
        if held.is_none() {
            tokio::select! {
                Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
                first = queue.recv() => held = first,
            }
        }
        let Some(first) = held.take() else { break };
        let batch = collect(first, &mut queue, &mut held);
        in_flight.push(submit(raft.clone(), Arc::clone(&replies), batch));
        while in_flight.len() >= IN_FLIGHT {
            in_flight.next().await;
        }
    }
    while in_flight.next().await.is_some() {}
}

/// Takes what waits behind `first`, up to the limits of an entry; what does not fit is held for the next.
fn collect<R>(
    first: Waiting<R>,
    queue: &mut mpsc::Receiver<Waiting<R>>,
    held: &mut Option<Waiting<R>>,
) -> Vec<Waiting<R>> {
    let mut bytes = first.command.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMANDS {
        let Ok(w) = queue.try_recv() else { break };
        bytes += w.command.len();
        if bytes > BATCH_BYTES {
            *held = Some(w);
            break;
        }
        batch.push(w);
    }
    batch
}

async fn submit<M: Machine>(raft: Raft<M>, replies: Arc<Replies<M::Reply>>, batch: Vec<Waiting<M::Reply>>) {
    let outcome = match Batch::pack(batch.iter().map(|w| w.command.as_slice())) {
        None => Err(ProposeError::TooLong),
        Some(entry) => write(&raft, entry).await.map(|index| replies.take(index)),
    };
    let (mut given, error) = match outcome {
        Ok(given) => (given.into_iter(), ProposeError::Stopped),
        Err(e) => (Vec::new().into_iter(), e),
    };
    for w in batch {
        if w.reply.send(given.next().ok_or_else(|| error.clone())).is_err() {
            tracing::debug!("a caller went away before its command was applied");
        }
    }
}

/// Writes one entry and returns its index once applied. A refusal before the append is tried again while nobody leads.
async fn write<M: Machine>(raft: &Raft<M>, entry: Batch) -> Result<u64, ProposeError> {
    let deadline = Instant::now() + SETTLE;
    let mut metrics = raft.server_metrics();
    loop {
        let refused = match raft.client_write(entry.clone()).await {
            Ok(written) => return Ok(written.log_id.index),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(f))) => f,
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => return Err(ProposeError::Unknown),
            Err(e) => {
                tracing::error!(error = %e, "raft has stopped");
                return Err(ProposeError::Stopped);
            }
        };
        if let ForwardToLeader { leader_id: Some(leader), leader_node: Some(node), .. } = refused {
            return Err(ProposeError::NotLeader { leader, address: node.addr });
        }
        // The next change of leadership, or a moment for a fresh leader's lease, whichever comes first.
        let soon = deadline.min(Instant::now() + Duration::from_millis(10));
        if Instant::now() >= deadline {
            return Err(ProposeError::Unavailable);
        }
        if tokio::time::timeout_at(soon, metrics.changed()).await.is_ok_and(|c| c.is_err()) {
            return Err(ProposeError::Stopped);
        }
    }
}
