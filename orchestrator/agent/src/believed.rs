//! What the node believes and remembers, under one lock: every order is judged, and what follows from it persisted,
//! before the next one is looked at. So no two orders can use one grant, and nothing is in force that is not on disk.

mod eras;

use crate::keys::{KeyError, KeyRing};
use crate::state::StateError;
use crate::state::memory::MemoryFile;
use crate::state::trust::TrustFiles;
use holdfast_orchestrator_core::verify::{
    Accepted, Extended, Gap, News, NodeSelf, NodeTrust, Refusal, RunningTask, StopAllowed, TaskMemory, use_up,
    verify_assign, verify_lease_ext, verify_logs_request, verify_revoke, verify_stop,
};
use holdfast_pki::chain::{Anchors, ChainError, Peer};
use holdfast_transport::tls::TrustCell;
use holdfast_types::{ClusterId, Digest, GrantId, Millis, NodeId, SpiffeId};
use holdfast_wire::v1::{Assign, LogsRequest, Statement, Stop};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a revoked grant that never came here is remembered: longer than the protocol lets any grant wait for its
/// start (24 h).
const REVOKED_KEPT: Duration = Duration::from_secs(25 * 3600);

/// Why an order or document is not followed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It is not believed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be persisted, so it is not followed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys could not be kept.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The roots of a believed bundle cannot be used.
    #[error("the bundle's roots: {0}")]
    Roots(#[from] ChainError),
    /// The log must be shown to be consistent first.
    #[error("the receipt's log of {} to {} entries is not proven to be one log", .0.from, .0.to)]
    Unproven(Gap),
    /// The process is stopping.
    #[error("interrupted")]
    Interrupted,
}

/// A signed document that changes what the node believes.
#[derive(Debug)]
pub enum Document {
    /// Keys of people.
    Charter(Statement),
    /// Roots and statement keys.
    Bundle(Statement),
    /// The heartbeat.
    Status(Statement),
    /// Who and what is refused.
    Revocations(Statement),
}

/// What the vault's Revocations say of this node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Counts,
    /// Certificates of it are revoked: it gets nothing new, and what it runs lapses with its leases.
    Revoked,
    /// No certificate of it ever counts again: it ends what it runs.
    Removed,
}

struct Inner {
    trust: NodeTrust,
    me: NodeSelf,
    ring: KeyRing,
    memory: TaskMemory,
    files: TrustFiles,
    memory_file: MemoryFile,
    /// Revocations that came before the Status that names them.
    early: Option<Statement>,
    local_clock: fn() -> Millis,
}
impl Inner {
    fn now(&self) -> Millis {
        (self.local_clock)()
    }
}

/// Shared by all streams.
pub struct Believed {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    tls: Arc<TrustCell>,
    node_id: NodeId,
    cluster: ClusterId,
    /// The latest time that a Status told, readable without the lock.
    time_floor: AtomicI64,
    local_clock: fn() -> Millis,
}

impl Believed {
    /// From what was persisted; `local_clock` is this machine's.
    pub fn open(
        node_id: NodeId,
        ring: KeyRing,
        files: TrustFiles,
        memory_file: MemoryFile,
        local_clock: fn() -> Millis,
    ) -> Result<Self, Denied> {
        let (trust, memory) = (files.load()?, memory_file.load()?);
        let tls = TrustCell::new(anchors(&trust)?);
        let (cluster, keys) = (*trust.cluster(), ring.node_keys());
        let me = NodeSelf { node_id: node_id.clone(), keys };
        let time_floor = AtomicI64::new(trust.time_floor().0);
        let inner = Inner { trust, me, ring, memory, files, memory_file, early: None, local_clock };
        let (inner, changes) = (Mutex::new(inner), watch::Sender::new(0));
        Ok(Self { inner, changes, tls, node_id, cluster, time_floor, local_clock })
    }
    /// The roots that TLS believes; follows the bundle.
    pub fn tls(&self) -> Arc<TrustCell> {
        self.tls.clone()
    }
    /// This node.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }
    /// Its cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }
    /// A notice for every document that was put into force.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Runs `f` off the runtime's threads: it verifies signatures and waits for a disk.
    async fn judge<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Inner) -> Result<T, Denied> + Send + 'static,
    ) -> Result<T, Denied> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.locked(f)).await.unwrap_or(Err(Denied::Interrupted))
    }
    /// The same, of documents: `true` is news for whoever waits for changes.
    async fn judge_news(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Inner) -> Result<bool, Denied> + Send + 'static,
    ) -> Result<bool, Denied> {
        let changed = self.judge(f).await?;
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
        Ok(changed)
    }

    /// The clock that counts: the local one, but never before a time that a Status has told. Never waits.
    pub fn clock(&self) -> Millis {
        (self.local_clock)().max(Millis(self.time_floor.load(Ordering::Relaxed)))
    }
    /// Epoch of the bundle and version of the charter in force, as reports tell them.
    pub fn versions(&self) -> (u64, u64) {
        self.locked(|i| (i.trust.bundle().epoch, i.trust.charter().head().version))
    }
    /// Why this Status is of a vault that was set back, if it is, and the newest epoch that was seen.
    pub fn set_back(&self, st: &Statement) -> Option<(Refusal, u64)> {
        self.locked(|i| i.trust.set_back(st))
    }
    /// True if a Status is in force and keys are held: an assignment could pass.
    pub fn can_start(&self) -> bool {
        self.locked(|i| i.trust.status().is_some() && i.ring.newest().is_some())
    }
    /// True if `peer` was revoked, or shows a key that it had before it was released from quarantine.
    pub fn is_revoked(&self, peer: &Peer) -> bool {
        self.locked(|i| i.trust.is_revoked_key(&peer.id.name, &peer.spki_sha256))
    }

    /// What the vault's Revocations say of this node itself.
    pub fn standing(&self) -> Standing {
        self.locked(|i| i.standing())
    }

    /// Judges a document, persists it, puts it into force. `false`: it was no news.
    pub async fn observe(self: &Arc<Self>, document: Document) -> Result<bool, Denied> {
        let this = self.clone();
        self.judge_news(move |i| {
            let changed = i.observe(document, &this.tls)?;
            this.time_floor.store(i.trust.time_floor().0, Ordering::Relaxed);
            Ok(changed)
        })
        .await
    }

    /// Judges an assignment; if it passes, remembers its use durably. `proven`: the gap whose proof was observed.
    pub async fn accept(
        self: &Arc<Self>,
        peer: SpiffeId,
        assign: Arc<Assign>,
        proven: Option<Gap>,
    ) -> Result<Accepted, Denied> {
        self.judge(move |i| {
            if i.standing() == Standing::Removed {
                return Err(Denied::Refused(removed()));
            }
            let accepted = verify_assign(&i.trust, &i.me, &i.memory, &peer, i.now(), &assign)?;
            let memory = use_up(&i.trust, &i.memory, &accepted, proven.as_ref()).map_err(Denied::Unproven)?;
            i.memory_file.save(&memory)?;
            i.memory = memory;
            Ok(accepted)
        })
        .await
    }
    /// Uses up a grant of ours that is refused; `false` if it was used before. `start_before`: the end of its start.
    pub async fn use_up(self: &Arc<Self>, grant: GrantId, start_before: Millis) -> Result<bool, Denied> {
        self.judge(move |i| {
            if i.memory.consumed.contains_key(&grant) {
                return Ok(false);
            }
            let mut memory = i.memory.clone();
            memory.forget_expired(i.trust.time_floor());
            memory.consumed.insert(grant, start_before);
            i.memory_file.save(&memory)?;
            i.memory = memory;
            Ok(true)
        })
        .await
    }
    /// Takes the proof for a gap.
    pub async fn prove(self: &Arc<Self>, gap: Gap, proof: Vec<Digest>) -> Result<(), Denied> {
        self.judge(move |i| {
            // Another assignment was faster and a newer checkpoint is held: the next look finds the gap that is left.
            if i.trust.checkpoint_size().is_some_and(|held| held != gap.from && held != gap.to) {
                return Ok(());
            }
            if let News::Todo(next) = i.trust.observe_checkpoint(i.now(), &gap.note, &proof)? {
                let mut trust = i.trust.clone();
                trust.adopt_checkpoint(next);
                i.files.save_heartbeat(&trust)?;
                i.trust = trust;
            }
            Ok(())
        })
        .await
    }

    /// Judges an orchestrator's order to stop the task of `grant`.
    pub fn may_stop(&self, peer: &SpiffeId, task: &RunningTask<'_>, stop: &Stop) -> Result<StopAllowed, Refusal> {
        self.locked(|i| verify_stop(&i.trust, &i.me, &i.memory, peer, i.now(), task, stop))
    }
    /// Judges the vault's revocation. Its grants are used up from now on, whether or not they came here before.
    pub async fn revoke(self: &Arc<Self>, st: Statement) -> Result<Vec<GrantId>, Denied> {
        self.judge(move |i| {
            let revoked = verify_revoke(&i.trust, &i.me, i.now(), &st)?;
            let until = i.trust.clock(i.now()).plus(REVOKED_KEPT);
            let mut memory = i.memory.clone();
            for grant in &revoked {
                memory.consumed.entry(*grant).or_insert(until);
            }
            i.memory_file.save(&memory)?;
            i.memory = memory;
            Ok(revoked)
        })
        .await
    }
    /// Judges the vault's extension of leases.
    pub fn extend(&self, st: &Statement) -> Result<Vec<Extended>, Refusal> {
        self.locked(|i| verify_lease_ext(&i.trust, &i.me, i.now(), st))
    }
    /// Judges an operator's request for logs.
    pub fn logs(&self, st: &Statement) -> Result<LogsRequest, Refusal> {
        self.locked(|i| verify_logs_request(&i.trust, i.now(), st))
    }

    /// The HPKE key to send along with the TLS key `spki`.
    pub async fn offer_key(self: &Arc<Self>, spki: Digest) -> Result<[u8; 32], Denied> {
        self.judge(move |i| Ok(i.ring.offer(spki)?)).await
    }
    /// Takes a new generation of keys into use.
    pub async fn accept_key(self: &Arc<Self>, spki: Digest, seq: u64, psk: Vec<u8>) -> Result<(), Denied> {
        self.judge(move |i| {
            i.ring.accept(spki, seq, psk)?;
            i.me.keys = i.ring.node_keys();
            Ok(())
        })
        .await
    }
    /// The newest generation of keys that is held.
    pub fn newest_key(&self) -> Option<u64> {
        self.locked(|i| i.ring.newest())
    }
}

/// The roots in force, for TLS.
pub fn anchors(trust: &NodeTrust) -> Result<Anchors, ChainError> {
    Anchors::new(&trust.bundle().roots, trust.trust_domain().clone())
}

fn removed() -> Refusal {
    Refusal { check: 0, code: "node-removed", reason: "this node was removed from its cluster".to_owned() }
}

impl Inner {
    /// LAW: only a removal is for ever (`a_node_that_was_removed_ends_its_tasks_and_starts_nothing_ever_again`,
    /// `a_node_whose_certificates_are_revoked_keeps_its_tasks_for_their_leases`). Any other entry is of certificates that are
    /// over, and a later one counts again.
    fn standing(&self) -> Standing {
        match self.trust.revoked_below(self.me.node_id.as_str()) {
            None => Standing::Counts,
            Some(u64::MAX) => Standing::Removed,
            Some(_) => Standing::Revoked,
        }
    }
    fn observe(&mut self, document: Document, tls: &TrustCell) -> Result<bool, Denied> {
        let mut next = self.trust.clone();
        match document {
            Document::Charter(st) => match self.trust.observe_charter(&st)? {
                News::Todo(n) => next.adopt_charter(n),
                News::AlreadyDone | News::Stale => return Ok(false),
            },
            Document::Bundle(st) => match self.trust.observe_bundle(&st)? {
                News::Todo(n) => next.adopt_bundle(n),
                News::AlreadyDone | News::Stale => return Ok(false),
            },
            Document::Status(st) => match self.trust.observe_status(self.now(), &st)? {
                News::Todo(n) => next.adopt_status(n),
                News::AlreadyDone | News::Stale => return Ok(false),
            },
            Document::Revocations(st) => match self.trust.observe_revocations(self.now(), &st)? {
                News::Todo(n) => next.adopt_revocations(n),
                News::AlreadyDone => return Ok(false),
                News::Stale => {
                    self.early = Some(st);
                    return Ok(false);
                }
            },
        }
        if let Some(st) = self.early.take() {
            match next.observe_revocations(self.now(), &st) {
                Ok(News::Todo(n)) => next.adopt_revocations(n),
                Ok(News::Stale) => self.early = Some(st),
                Ok(News::AlreadyDone) | Err(_) => {}
            }
        }
        self.put_into_force(next, tls)?;
        Ok(true)
    }

    /// Persists, then adopts: a crash between the two only means that the vault says it again.
    fn put_into_force(&mut self, next: NodeTrust, tls: &TrustCell) -> Result<(), Denied> {
        let rekeyed = next.bundle().epoch != self.trust.bundle().epoch || next.bundle().era != self.trust.bundle().era;
        let rechartered = next.charter().head().version != self.trust.charter().head().version;
        let roots = if rekeyed { Some(anchors(&next)?) } else { None };
        if rekeyed || rechartered {
            self.files.save_anchors(&next)?;
        }
        self.files.save_heartbeat(&next)?;
        self.trust = next;
        if let Some(roots) = roots {
            tls.swap(roots);
        }
        Ok(())
    }
}
