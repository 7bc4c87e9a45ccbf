//! Voters among themselves: listener P, and the ways to the other voters.
//!
//! * `line`: one kept connection a voter, dialled beside the calls and again when it breaks;
//! * `wire`: raft's messages and snapshots over it;
//! * `service`: what other voters ask of this one;
//! * [`backfill`]: log leaves that a voter lacks because it began from a snapshot.
//!
//! Must never: let anything of raft out or in while the gate is closed, take a message of a voter whose disk was set back, or
//! speak as any voter but this one.

pub mod backfill;
mod line;
mod service;
#[cfg(test)]
mod tests;
mod wire;

pub use service::{Host, routes};

use crate::disk::boot::Boot;
use crate::raft::Wire;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::peer_client::PeerClient;
use holdfast_transport::tls::peers::PeerTls;
use holdfast_types::VoterId;
use holdfast_vault_core::VoterMark;
use holdfast_wire::v1;
use line::Line;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long a question beside raft's own may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most leaves asked for at a time.
pub(crate) const LEAVES: u64 = 256;
/// Most bytes of leaves that one question brings.
const LEAF_BYTES: usize = 16 << 20;
/// The word for a disk that was set back.
const ROLLED_BACK: &str = "rolled-back";

/// One process of a voter: how many there were before it, and 16 random bytes of its own.
type Run = (u64, [u8; 16]);
/// The newest process of each other voter.
type Heard<'a> = MutexGuard<'a, BTreeMap<VoterId, Run>>;

/// This voter among the others.
pub struct Peers {
    me: VoterId,
    boot: Run,
    tls: PeerTls,
    open: AtomicBool,
    lines: Mutex<BTreeMap<VoterId, Arc<Line>>>,
    /// The newest process of each other voter that was heard.
    heard: Mutex<BTreeMap<VoterId, Run>>,
    /// The newest term in which each other voter granted us its vote.
    granted: Mutex<BTreeMap<VoterId, u64>>,
    rolled_back: CancellationToken,
    /// Rings when another voter has asked how far it was.
    called: Notify,
    /// One snapshot is taken in at a time: it is held in memory.
    installing: Semaphore,
}

impl Peers {
    /// Voter `me`, as this process. The gate is closed.
    pub fn new(me: VoterId, boot: &Boot, tls: PeerTls) -> Arc<Self> {
        Arc::new(Self {
            me,
            boot: (boot.count, boot.id),
            tls,
            open: AtomicBool::new(false),
            lines: Mutex::default(),
            heard: Mutex::default(),
            granted: Mutex::default(),
            rolled_back: CancellationToken::new(),
            called: Notify::new(),
            installing: Semaphore::new(1),
        })
    }

    /// Lets raft out and in: the others know of nothing that this voter has forgotten.
    pub fn open_gate(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether raft may go out and in.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// For raft.
    pub fn wire(self: &Arc<Self>) -> Arc<dyn Wire> {
        Arc::clone(self) as Arc<dyn Wire>
    }

    /// Cancelled once another voter has seen a later process of this one: this disk was set back.
    pub fn rolled_back(&self) -> CancellationToken {
        self.rolled_back.clone()
    }

    /// Votes that others granted this one, to be recorded.
    pub fn granted(&self) -> Vec<VoterMark> {
        let granted = lock(&self.granted);
        granted.iter().map(|(id, term)| VoterMark { id: *id, index: 0, vote_term: *term }).collect()
    }

    /// How far this voter has been, as voter `to` knows, which hears no earlier process of it from then on. Works while the
    /// gate is closed.
    pub async fn high_water(&self, to: VoterId, addr: &str) -> Result<v1::HighWaterReply, Failure> {
        self.ask_high_water(to, addr, true).await
    }

    /// The same, and voter `to` goes on hearing whom it heard before.
    pub async fn high_water_before(&self, to: VoterId, addr: &str) -> Result<v1::HighWaterReply, Failure> {
        self.ask_high_water(to, addr, false).await
    }

    async fn ask_high_water(&self, to: VoterId, addr: &str, fence: bool) -> Result<v1::HighWaterReply, Failure> {
        let request = v1::HighWaterRequest { boot: Some(self.boot()), fence };
        self.ask(to, addr, |mut c| async move { c.high_water(request).await }).await
    }

    /// Returns once another voter has asked how far it was, since this returned last: it is up, and can be asked too.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    /// Voter `from` has asked how far it was.
    fn called_by(&self, from: VoterId) {
        let line = lock(&self.lines).get(&from).cloned();
        if let Some(line) = line {
            line.is_there();
        }
        self.called.notify_one();
    }

    /// Tells the leader `to` of this voter. The report's boot is filled in.
    pub async fn report(
        &self,
        to: VoterId,
        addr: &str,
        report: v1::VoterReport,
    ) -> Result<v1::VoterReportReply, Failure> {
        self.gate()?;
        let report = v1::VoterReport { boot: Some(self.boot()), ..report };
        self.ask(to, addr, |mut c| async move { c.report(report).await }).await
    }

    /// Leaves of the log from `from` on, as voter `to` has them: in order and without a gap, fewer than asked for if they are
    /// many. Nothing of them is verified.
    pub async fn backfill(&self, to: VoterId, addr: &str, from: u64, until: u64) -> Result<Vec<v1::LeafData>, Failure> {
        self.gate()?;
        let until = until.min(from.saturating_add(LEAVES));
        let collected = |mut c: PeerClient<Channel>| async move {
            let mut chunks = c.backfill(v1::BackfillRequest { from, until }).await?.into_inner();
            let (mut leaves, mut bytes) = (Vec::new(), 0);
            while let Some(chunk) = chunks.message().await? {
                bytes += chunk.leaves.iter().map(|l| l.entry.len() + l.salt.len()).sum::<usize>();
                leaves.extend(chunk.leaves);
                if bytes > LEAF_BYTES {
                    break;
                }
            }
            Ok::<_, tonic::Status>(tonic::Response::new(leaves))
        };
        let leaves: Vec<v1::LeafData> = self.ask(to, addr, collected).await?;
        let in_order = leaves.iter().zip(from..until).all(|(leaf, index)| leaf.index == index);
        if leaves.is_empty() || leaves.len() as u64 > until.saturating_sub(from) || !in_order {
            return Err(Failure::unavailable("unavailable", format!("voter {to} does not have these leaves")));
        }
        Ok(leaves)
    }

    /// One question over the kept connection.
    async fn ask<T, Fut>(
        &self,
        to: VoterId,
        addr: &str,
        question: impl FnOnce(PeerClient<Channel>) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let late = |_| Failure::unavailable("timed-out", format!("voter {to} did not answer within {PATIENCE:?}"));
        let answered = self.over_line(to, addr, question);
        tokio::time::timeout(PATIENCE, answered).await.map_err(late)?
    }

    /// One call; a connection that broke by it is given up, and a word about a disk that was set back is heeded.
    async fn over_line<T, Fut>(
        &self,
        to: VoterId,
        addr: &str,
        question: impl FnOnce(PeerClient<Channel>) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let line = self.line(to, addr);
        let up = line.up().await?;
        match question(wire::client(&up.link)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                let failure = up.link.explain(status);
                line.failed(&up, &failure);
                self.heed(to, &failure);
                Err(failure)
            }
        }
    }

    /// Another voter has seen a later process of this one.
    fn heed(&self, by: VoterId, failure: &Failure) {
        if failure.code == ROLLED_BACK && !self.rolled_back.is_cancelled() {
            tracing::error!(by = by.0, "another voter has seen a later process of this one: this disk was set back");
            self.rolled_back.cancel();
        }
    }

    fn line(&self, to: VoterId, addr: &str) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&to).filter(|l| l.leads_to(addr)) {
            return Arc::clone(line);
        }
        let line = Line::new(to, addr, self.tls.clone());
        lines.insert(to, Arc::clone(&line));
        line
    }

    fn gate(&self) -> Result<(), Failure> {
        if self.is_open() {
            return Ok(());
        }
        Err(Failure::unavailable("unavailable", "this voter has not made sure yet that its disk was not set back"))
    }

    fn boot(&self) -> v1::Boot {
        v1::Boot { count: self.boot.0, id: self.boot.1.to_vec() }
    }

    /// Takes a message of `from`'s process `said`, unless a later one has been heard. `recorded` is asked for the first message.
    fn hear(
        &self,
        from: VoterId,
        said: Option<&v1::Boot>,
        recorded: impl FnOnce() -> Option<Run>,
    ) -> Result<(), Failure> {
        let (mut heard, said) = self.listen(from, said, recorded)?;
        heard.insert(from, said);
        Ok(())
    }

    /// The same, and takes no note of it.
    fn listen(
        &self,
        from: VoterId,
        said: Option<&v1::Boot>,
        recorded: impl FnOnce() -> Option<Run>,
    ) -> Result<(Heard<'_>, Run), Failure> {
        let said = said.and_then(run).ok_or_else(|| Failure::invalid("invalid-input", "the message names no boot"))?;
        let known = lock(&self.heard).get(&from).copied();
        let recorded = if known.is_none() { recorded() } else { None };
        let heard = lock(&self.heard);
        let newest = heard.get(&from).copied().max(recorded);
        if let Some(newest) = newest
            && (said.0 < newest.0 || (said.0 == newest.0 && said.1 != newest.1))
        {
            tracing::error!(from = from.0, count = said.0, "a voter whose disk was set back spoke; it was refused");
            let why = format!("voter {from} has booted {} times, and this is boot {}", newest.0, said.0);
            return Err(Failure::changed(ROLLED_BACK, why).help("evict this voter and admit the machine as a new one"));
        }
        Ok((heard, said))
    }

    /// The newest process of `of` that was heard.
    fn newest(&self, of: VoterId) -> Option<Run> {
        lock(&self.heard).get(&of).copied()
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({})", self.me)
    }
}

fn run(boot: &v1::Boot) -> Option<Run> {
    boot.id.as_slice().try_into().ok().map(|id| (boot.count, id))
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
