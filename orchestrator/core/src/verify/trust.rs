//! What a node believes, each part verified from the anchor that it was given at join (protocol, the trust anchor, status).
//!
//! A document is judged by `observe_*`, persisted by the shell, then put into force by `adopt_*`: never the other way
//! round, so that a crash loses nothing and a refused document leaves no trace. Era, epoch and time never go back.

mod eras;

use super::bundle::{BundleChain, NewBundle};
use super::refusal::{Refusal, require};
use holdfast_pki::bundle::Admins;
use holdfast_types::{ClusterId, Digest, Millis, TrustDomain, sha256};
use holdfast_wire::charter::{CharterChain, NewCharter};
use holdfast_wire::merkle::verify_consistency;
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::statement::{self, News};
use holdfast_wire::v1::{Bundle, Holder, PublicKey, Revocation, Revocations, Statement, Status, Stk};

/// A node's believed state.
#[derive(Debug, Clone)]
pub struct NodeTrust {
    anchor: Digest,
    charter: CharterChain,
    bundle: BundleChain,
    status: Option<(Statement, Status)>,
    revocations: Option<(Statement, Revocations)>,
    checkpoint: Option<Checkpoint>,
    floor: Floor,
    before: Option<Before>,
}

/// What was held of the era before, for the vault of this one to see: whoever was revoked then stays so, however old the backup
/// that this era began with.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// The newest Revocations.
    pub revocations: Statement,
    /// Every bundle of that era, oldest first.
    pub bundles: Vec<Statement>,
}

/// What may never go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Floor {
    epoch: u64,
    time: Millis,
}

/// Everything that a node keeps on disk of its trust: raw statements, verified again by [`NodeTrust::rebuild`].
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Pins the CA root and the cluster's name (from the join token).
    pub anchor: Digest,
    /// Every charter, version 1 first.
    pub charters: Vec<Statement>,
    /// Every bundle since the join, oldest first.
    pub bundles: Vec<Statement>,
    /// The newest Status.
    pub status: Option<Statement>,
    /// The Revocations that it names.
    pub revocations: Option<Statement>,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Highest epoch of a Status.
    pub epoch_floor: u64,
    /// Latest time that a Status told.
    pub time_floor: Millis,
    /// Era of the status and what hangs on it: of another one than the bundles' nothing but the time counts.
    pub heartbeat_era: u64,
    /// What was held of the era before, until its vault has seen it.
    pub before: Option<Before>,
}

/// An era after the one in force.
#[derive(Debug)]
pub struct NewEra(NodeTrust);

impl NewEra {
    /// What is believed from now on; persist it before adopting.
    pub fn trust(self) -> NodeTrust {
        self.0
    }
}

/// A Status that is news.
#[derive(Debug)]
pub struct NewStatus {
    statement: Statement,
    status: Status,
    checkpoint: Option<Checkpoint>,
}
/// Revocations that the held Status calls for.
#[derive(Debug)]
pub struct NewRevocations {
    statement: Statement,
    revocations: Revocations,
}
/// A checkpoint that the held one is a prefix of.
#[derive(Debug)]
pub struct NewCheckpoint(Checkpoint);

impl NewStatus {
    /// The statement to persist before adopting.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}
impl NewRevocations {
    /// The statement to persist before adopting.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}
impl NewCheckpoint {
    /// What to persist before adopting.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.0
    }
}

impl NodeTrust {
    /// Believes a join challenge, or refuses: `H(charter v1)` and the root of the bundle must be what `anchor` pins.
    pub fn join(anchor: Digest, charters: &[Statement], bundles: &[Statement]) -> Result<Self, Refusal> {
        let charter = CharterChain::verify(charters)?;
        let bundle = BundleChain::verify(&anchor, charter.cluster(), Admins::ever(&charter), bundles)?;
        let floor = Floor::default();
        Ok(Self { anchor, charter, bundle, status: None, revocations: None, checkpoint: None, floor, before: None })
    }
    /// Believes again what was saved. A Status or Revocations that no longer verify are dropped (the vault sends new
    /// ones); charter and bundles that do not verify are an error. The floors of time and epoch always survive.
    pub fn rebuild(s: &Saved) -> Result<Self, Refusal> {
        let mut t = Self::join(s.anchor, &s.charters, &s.bundles)?;
        t.before.clone_from(&s.before);
        if s.heartbeat_era != t.era() {
            // Of another era, and it may have been driven ahead: the era's statement keys say when it is at least.
            let began = t.bundle().stks.iter().map(|k| Millis(k.from_ms)).min();
            t.floor.time = began.map_or(s.time_floor, |began| s.time_floor.min(began));
            return Ok(t);
        }
        t.floor = Floor { epoch: s.epoch_floor, time: s.time_floor };
        t.checkpoint.clone_from(&s.checkpoint);
        t.status = s.status.as_ref().and_then(|st| {
            let at = Millis(statement::peek::<Status>(st).ok()?.issued_at_ms);
            let v = statement::verify::<Status>(st, &t.bundle.stks_ever(at), 1).ok()?;
            t.check_place(&v.doc.cluster_id, v.doc.era).ok()?;
            Some((st.clone(), v.doc))
        });
        let listed = t.status.as_ref().map(|(_, s)| s.revocations_sha256.clone());
        t.revocations = s.revocations.as_ref().and_then(|st| {
            let named = listed.is_some_and(|l| l == sha256(&[&st.payload]).0);
            named.then(|| statement::peek::<Revocations>(st).ok()).flatten().map(|r| (st.clone(), r))
        });
        Ok(t)
    }
    /// What to keep on disk.
    pub fn saved(&self) -> Saved {
        Saved {
            anchor: self.anchor,
            charters: self.charter.statements().to_vec(),
            bundles: self.bundle.statements().to_vec(),
            status: self.status.as_ref().map(|(st, _)| st.clone()),
            revocations: self.revocations.as_ref().map(|(st, _)| st.clone()),
            checkpoint: self.checkpoint.clone(),
            epoch_floor: self.floor.epoch,
            time_floor: self.floor.time,
            heartbeat_era: self.era(),
            before: self.before.clone(),
        }
    }
    /// Judges a charter.
    pub fn observe_charter(&self, st: &Statement) -> Result<News<NewCharter>, Refusal> {
        Ok(self.charter.observe(st)?)
    }
    /// Puts a charter into force.
    pub fn adopt_charter(&mut self, n: NewCharter) {
        self.charter.adopt(n);
    }
    /// Judges a bundle.
    pub fn observe_bundle(&self, st: &Statement) -> Result<News<NewBundle>, Refusal> {
        self.bundle.observe(st, Admins::in_force(&self.charter))
    }
    /// Puts a bundle into force.
    pub fn adopt_bundle(&mut self, n: NewBundle) {
        self.bundle.adopt(n);
    }

    /// Judges a Status: signed by a statement key whose window holds both its time and now, of this era, not older.
    pub fn observe_status(&self, now: Millis, st: &Statement) -> Result<News<NewStatus>, Refusal> {
        let shown: Status = statement::peek(st).map_err(Refusal::statement(0, "status-malformed"))?;
        // The window must hold the time that the Status tells: a stolen key cannot move time beyond its own end. It
        // need not have begun by the local clock, which may be slow.
        let told = shown.issued_at_ms;
        let counts = |s: &&Stk| s.from_ms <= told && told < s.until_ms && self.clock(now).0 < s.until_ms;
        let keys: Vec<PublicKey> =
            self.bundle.head().stks.iter().filter(counts).filter_map(|s| s.key.clone()).collect();
        let s = statement::verify::<Status>(st, &keys, 1).map_err(Refusal::statement(0, "status-signature"))?.doc;
        self.check_place(&s.cluster_id, s.era)?;
        require(s.expires_at_ms > s.issued_at_ms, 0, "status-times", || "status expires before it was issued".into())?;
        if self.status.as_ref().is_some_and(|(held, _)| held.payload == st.payload) {
            return Ok(News::AlreadyDone);
        }
        if s.epoch < self.floor.epoch || Millis(s.issued_at_ms) < self.floor.time {
            return Ok(News::Stale);
        }
        let checkpoint =
            if s.checkpoint.is_empty() { None } else { Some(self.read_checkpoint(&s.checkpoint, &keys, 0)?) };
        if let Some(c) = &checkpoint {
            self.check_fork(c, 0)?;
        }
        Ok(News::Todo(NewStatus { statement: st.clone(), status: s, checkpoint }))
    }
    /// Why a Status of this era is of a vault that was set back: it is of an epoch before one that was seen. A leader that does
    /// not know yet that it was followed says so too, for a moment: whoever asks counts. With it the newest epoch that was seen.
    pub fn set_back(&self, st: &Statement) -> Option<(Refusal, u64)> {
        let s: Status = statement::peek(st).ok()?;
        self.check_place(&s.cluster_id, s.era).ok()?;
        let why = || format!("a status of epoch {}, after one of epoch {}", s.epoch, self.floor.epoch);
        (s.epoch < self.floor.epoch).then(|| (Refusal::outside("status-set-back", why()), self.floor.epoch))
    }
    /// Puts a Status into force; the first one also brings the first checkpoint.
    pub fn adopt_status(&mut self, n: NewStatus) {
        self.floor.epoch = self.floor.epoch.max(n.status.epoch);
        self.floor.time = self.floor.time.max(Millis(n.status.issued_at_ms));
        if self.checkpoint.is_none() {
            self.checkpoint = n.checkpoint;
        }
        self.status = Some((n.statement, n.status));
    }

    /// Judges Revocations: only those that the held Status names by hash are of use.
    pub fn observe_revocations(&self, now: Millis, st: &Statement) -> Result<News<NewRevocations>, Refusal> {
        let v = statement::verify::<Revocations>(st, &self.stks(now), 1)
            .map_err(Refusal::statement(0, "revocations-signature"))?;
        self.check_place(&v.doc.cluster_id, v.doc.era)?;
        if self.status.as_ref().is_none_or(|(_, s)| s.revocations_sha256 != v.sha256.0) {
            return Ok(News::Stale);
        }
        if self.revocations.as_ref().is_some_and(|(held, _)| held.payload == st.payload) {
            return Ok(News::AlreadyDone);
        }
        Ok(News::Todo(NewRevocations { statement: st.clone(), revocations: v.doc }))
    }
    /// Puts Revocations into force.
    pub fn adopt_revocations(&mut self, n: NewRevocations) {
        self.revocations = Some((n.statement, n.revocations));
    }

    /// Judges a checkpoint note; `proof` shows that the smaller of it and the held one is a prefix of the larger.
    pub fn observe_checkpoint(
        &self,
        now: Millis,
        note: &[u8],
        proof: &[Digest],
    ) -> Result<News<NewCheckpoint>, Refusal> {
        let c = self.read_checkpoint(note, &self.stks(now), 0)?;
        let Some(held) = &self.checkpoint else { return Ok(News::Todo(NewCheckpoint(c))) };
        self.check_fork(&c, 0)?;
        if c.size == held.size {
            return Ok(News::AlreadyDone);
        }
        let (from, to) = if c.size < held.size { (&c, held) } else { (held, &c) };
        require(
            verify_consistency(from.size, &from.root, to.size, &to.root, proof),
            0,
            "checkpoint-inconsistent",
            || format!("no proof that the log of {} entries continues the one of {}", to.size, from.size),
        )?;
        Ok(if c.size > held.size { News::Todo(NewCheckpoint(c)) } else { News::Stale })
    }
    /// Leaves of the held checkpoint; `None` before the first.
    pub fn checkpoint_size(&self) -> Option<u64> {
        self.checkpoint.as_ref().map(|c| c.size)
    }
    /// Holds a newer checkpoint.
    pub fn adopt_checkpoint(&mut self, n: NewCheckpoint) {
        self.checkpoint = Some(n.0);
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterId {
        self.charter.cluster()
    }
    /// The cluster's label.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.charter.trust_domain()
    }
    /// The charters.
    pub fn charter(&self) -> &CharterChain {
        &self.charter
    }
    /// The bundle in force: its roots are what TLS trusts.
    pub fn bundle(&self) -> &Bundle {
        self.bundle.head()
    }
    /// The newest Status.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref().map(|(_, s)| s)
    }
    /// The held checkpoint.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }
    /// The clock that counts: the local one, but never before a time that a Status has told.
    pub fn clock(&self, now: Millis) -> Millis {
        now.max(self.floor.time)
    }
    /// Latest time that a Status told.
    pub fn time_floor(&self) -> Millis {
        self.floor.time
    }
    /// The Revocations, if they are the ones that the Status names.
    pub fn revocations(&self) -> Option<&Revocations> {
        let listed = &self.status()?.revocations_sha256;
        self.revocations.as_ref().filter(|(st, _)| *listed == sha256(&[&st.payload]).0).map(|(_, r)| r)
    }
    /// True if the identity `id` is in the Revocations. The list holds identities whose certificates might still be alive,
    /// and for some months those that were removed; a certificate does not tell its generation, so any entry counts that names no keys.
    pub fn is_revoked(&self, id: &str) -> bool {
        self.revoked_below(id).is_some()
    }
    /// True if a certificate of `id` for the key `spki` does not count: `id` is revoked, or was released and had this key before.
    pub fn is_revoked_key(&self, id: &str, spki: &Digest) -> bool {
        let named = |e: &Revocation| e.id == id && e.spki_sha256.iter().any(|k| *k == spki.0);
        self.is_revoked(id) || self.revocations().is_some_and(|r| r.revoked.iter().any(named))
    }
    /// The generation that a certificate of `id` must have at least to count again, by the Revocations; `None`: all count, but
    /// for those of keys that are named.
    pub fn revoked_below(&self, id: &str) -> Option<u64> {
        let listed = self.revocations()?.revoked.iter().filter(|e| e.id == id && e.spki_sha256.is_empty());
        listed.map(|e| e.not_before_seq).max()
    }
    /// Who holds the lease of `namespace`, by the newest Status.
    pub(crate) fn holder(&self, namespace: &str) -> Option<&Holder> {
        self.status()?.holders.iter().filter(|h| h.namespace == namespace).max_by_key(|h| h.fence)
    }
    /// Statement keys in force.
    pub(crate) fn stks(&self, now: Millis) -> Vec<PublicKey> {
        self.bundle.stks_at(self.clock(now))
    }
    /// True if charter and bundle are at least those that `s` names.
    pub(crate) fn keeps_up_with(&self, s: &Status) -> bool {
        self.charter.head().version >= s.charter_version && self.bundle.covers(&s.bundle_sha256)
    }
    pub(crate) fn era(&self) -> u64 {
        self.bundle.head().era
    }
    pub(crate) fn check_place(&self, cluster_id: &[u8], era: u64) -> Result<(), Refusal> {
        require(*cluster_id == self.cluster().0, 0, "cluster", || "it belongs to another cluster".into())?;
        require(era == self.era(), 0, "era", || format!("it is of era {era}, this is era {}", self.era()))
    }
    pub(crate) fn read_checkpoint(&self, note: &[u8], keys: &[PublicKey], check: u8) -> Result<Checkpoint, Refusal> {
        let log = origin(self.trust_domain().as_str(), self.era());
        Checkpoint::verify(note, &log, keys).map_err(|e| Refusal::new(check, "checkpoint", e.to_string()))
    }
    /// Two checkpoints of one size must have one root: anything else is a split view.
    pub(crate) fn check_fork(&self, c: &Checkpoint, check: u8) -> Result<(), Refusal> {
        let same = self.checkpoint.as_ref().is_none_or(|h| h.size != c.size || h.root == c.root);
        require(same, check, "checkpoint-fork", || {
            format!("two logs of {} entries: a split view, evidence of a bad vault", c.size)
        })
    }
}
