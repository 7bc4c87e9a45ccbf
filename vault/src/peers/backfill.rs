//! Log leaves from before this voter's time: a snapshot brings the tree's right edge alone, and the leaves are fetched from
//! other voters afterwards, beside everything else.
//!
//! Each complete subtree of the tree, as the state has it, is put in from its first leaf to its last and counts only once its
//! leaves hash to the state's peak. How far this has got is on the disk, so a restart goes on there. A batch of leaves is in
//! memory at a time, and one hash a level.
//!
//! Must never: count leaves as whole that do not hash to what the state says.

use super::{LEAVES, Peers};
use crate::raft::{AuditStore, Filled, Filling, Node, StoreError};
use futures::future::BoxFuture;
use holdfast_transport::client::Backoff;
use holdfast_transport::failure::Failure;
use holdfast_types::{Digest, VoterId};
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a voter that lacks nothing looks whether a snapshot brought a gap. Only what is new since is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why leaves are still missing.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// Nobody gave them.
    #[error(transparent)]
    Source(#[from] Failure),
    /// This voter's disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was given does not hash to the state's peak.
    #[error("the leaves from {from} on, as other voters gave them, are not those of this log; they are fetched again")]
    Wrong {
        /// The subtree's first leaf.
        from: u64,
    },
    /// This process is ending.
    #[error("this voter is stopping")]
    Stopping,
}

/// Where leaves come from.
pub trait Source: Send + Sync + 'static {
    /// Leaves from `from` on, in order and without a gap, at least one.
    fn leaves<'a>(&'a self, from: u64, until: u64) -> BoxFuture<'a, Result<Vec<v1::LeafData>, Failure>>;
    /// Asks another voter from now on.
    fn turn(&self);
}

/// The other voters, one after the other.
pub struct Others<F> {
    peers: Arc<Peers>,
    whom: F,
    turn: AtomicUsize,
}

impl<F: Fn() -> Vec<(VoterId, String)>> Others<F> {
    /// `whom` says who there is, and where, each time.
    pub fn new(peers: Arc<Peers>, whom: F) -> Self {
        Self { peers, whom, turn: AtomicUsize::new(0) }
    }
}

impl<F: Fn() -> Vec<(VoterId, String)> + Send + Sync + 'static> Source for Others<F> {
    fn leaves<'a>(&'a self, from: u64, until: u64) -> BoxFuture<'a, Result<Vec<v1::LeafData>, Failure>> {
        Box::pin(async move {
            let there = (self.whom)();
            let turn = self.turn.load(Ordering::Relaxed) % there.len().max(1);
            let nobody = || Failure::unavailable("unreachable", "there is no other voter to fetch leaves from");
            let (id, addr) = there.get(turn).ok_or_else(nobody)?;
            self.peers.backfill(*id, addr, from, until).await
        })
    }
    fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}

/// One complete subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subtree {
    from: u64,
    until: u64,
    peak: Digest,
}

/// The complete subtree of `tree` that holds leaf `index`.
fn subtree_of(tree: &Frontier, index: u64) -> Option<Subtree> {
    let mut from = 0;
    let sizes = (0..u64::BITS).rev().map(|level| 1_u64 << level).filter(|size| tree.size() & size != 0);
    for (size, peak) in sizes.zip(tree.peaks()) {
        let until = from + size;
        if index < until {
            return Some(Subtree { from, until, peak: *peak });
        }
        from = until;
    }
    None
}

/// Puts in what is missing below `tree`'s edge, and looks again now and then, until `tree` is gone or `stop`.
pub async fn run(
    audit: AuditStore,
    tree: impl Fn() -> Option<Frontier> + Send + Sync,
    source: Arc<dyn Source>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let work = async {
        loop {
            let Some(tree) = tree() else { return };
            match fill(&audit, &tree, source.as_ref()).await {
                Ok(0) => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                Ok(leaves) => {
                    tracing::info!(leaves, "leaves of the log from before this voter's time were put in and verified");
                    backoff.reset();
                    continue;
                }
                Err(FillError::Stopping) => return,
                Err(e) => {
                    tracing::warn!(error = %e, "older leaves of the log are still missing here");
                    source.turn();
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Puts in and verifies one subtree in which leaves are missing; its leaves, 0 once none are.
pub async fn fill(audit: &AuditStore, tree: &Frontier, source: &dyn Source) -> Result<u64, FillError> {
    let size = tree.size();
    let (filled, first) = off(audit, move |a| {
        let filled = a.filled()?;
        let first = match filled.filling {
            Filling::No => a.first_missing(filled.below, size)?,
            Filling::Unverified | Filling::Wrong => Some(filled.below),
        };
        Ok((filled, first))
    })
    .await?;
    let Some(part) = first.and_then(|index| subtree_of(tree, index)) else {
        if filled.below != size {
            mark(audit, size, Filling::No).await?;
        }
        return Ok(0);
    };
    let anew = filled.filling == Filling::Wrong;
    if !anew {
        mark(audit, part.from, Filling::Unverified).await?;
    }
    if edge_of(audit, part, anew, source).await?.peaks() == [part.peak] {
        mark(audit, part.until, Filling::No).await?;
        return Ok(part.until - part.from);
    }
    mark(audit, part.from, Filling::Wrong).await?;
    Err(FillError::Wrong { from: part.from })
}

async fn mark(audit: &AuditStore, below: u64, filling: Filling) -> Result<(), FillError> {
    off(audit, move |a| a.set_filled(Filled { below, filling })).await
}

/// Goes through a subtree's leaves, those that are missing fetched and put in; its edge, when all have been.
async fn edge_of(audit: &AuditStore, part: Subtree, anew: bool, source: &dyn Source) -> Result<Frontier, FillError> {
    let mut edge = Frontier::default();
    let mut at = part.from;
    while at < part.until {
        let to = part.until.min(at + LEAVES);
        let here = if anew { Vec::new() } else { off(audit, move |a| here(a, at, to)).await? };
        let fetched = here.is_empty();
        let leaves = if fetched { given(source.leaves(at, to).await?, at, to) } else { here };
        if leaves.is_empty() {
            return Err(Failure::unavailable("unavailable", "no leaves were given").into());
        }
        let mut nodes: Vec<Node> = Vec::new();
        for (_, leaf) in &leaves {
            let done = edge.push(leaf_hash(leaf, &[]));
            nodes.extend(done.iter().map(|n| (n.level, (part.from >> n.level) + n.index, n.hash.0)));
        }
        at += leaves.len() as u64;
        let leaves = if fetched { leaves } else { Vec::new() };
        off(audit, move |a| a.fill(&leaves, &nodes)).await?;
    }
    Ok(edge)
}

/// Leaves that are here already, up to the first that is not.
fn here(audit: &AuditStore, at: u64, to: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    Ok(audit.range(at, to)?.into_iter().zip(at..).map(|(leaf, index)| (index, leaf.expose().to_vec())).collect())
}

/// Leaves as others gave them, as they are kept: salt ‖ entry.
fn given(leaves: Vec<v1::LeafData>, at: u64, to: u64) -> Vec<(u64, Vec<u8>)> {
    leaves.into_iter().zip(at..to).map(|(leaf, index)| (index, [leaf.salt, leaf.entry].concat())).collect()
}

/// Work on the disk, where it holds up nobody.
async fn off<T: Send + 'static>(
    audit: &AuditStore,
    work: impl FnOnce(&AuditStore) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FillError> {
    let audit = audit.clone();
    let done = tokio::task::spawn_blocking(move || work(&audit)).await;
    Ok(done.map_err(|_| FillError::Stopping)??)
}
