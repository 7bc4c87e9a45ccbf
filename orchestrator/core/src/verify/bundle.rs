//! The bundle chain: CA roots and statement keys, each link signed by a root of the one before, or by the Admins of the charter
//! in force where no root could (protocol, root rotation).
//!
//! Signatures and content are `holdfast_pki`'s; here is which link is news. LAW: nothing else can add a root or a statement key;
//! tested by `h12_a_bundle_that_no_trusted_root_signed_adds_nothing`.

use super::refusal::{Refusal, require};
use holdfast_pki::bundle::{self, Admins, stk_keys};
use holdfast_types::{ClusterId, Digest, Millis};
use holdfast_wire::statement::{self, News, Verified};
use holdfast_wire::v1::{Bundle, PublicKey, Statement, Stk};

/// A verified chain of bundles, from the one that the join anchor pins; the last one is in force.
#[derive(Debug, Clone)]
pub struct BundleChain {
    cluster: ClusterId,
    statements: Vec<Statement>,
    stks: Vec<Stk>,
    head: Verified<Bundle>,
}

/// A bundle that follows the one in force.
#[derive(Debug)]
pub struct NewBundle {
    statement: Statement,
    verified: Verified<Bundle>,
}
impl NewBundle {
    /// The statement to persist before adopting.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}

impl BundleChain {
    /// Verifies a chain, oldest first, starting at the bundle that lists the pinned root and is signed by it.
    pub(crate) fn verify(
        anchor: &Digest,
        cluster: &ClusterId,
        mut admins: Admins<'_>,
        chain: &[Statement],
    ) -> Result<Self, Refusal> {
        let no_anchor = || {
            Refusal::outside(
                "bundle-anchor",
                "no bundle is signed by the root that the join token pins; get a new token",
            )
        };
        let mut links = chain.iter();
        let mut c = links.find_map(|st| Self::pinned(anchor, cluster, st)).ok_or_else(no_anchor)?;
        for st in links {
            admins = admins.after(c.head().charter_version);
            match c.observe(st, admins)? {
                News::Todo(next) => c.adopt(next),
                News::AlreadyDone | News::Stale => {
                    return Err(Refusal::outside("bundle-order", "bundle chain repeats or goes back"));
                }
            }
        }
        Ok(c)
    }
    fn pinned(anchor: &Digest, cluster: &ClusterId, st: &Statement) -> Option<Self> {
        let shown: Bundle = statement::peek(st).ok()?;
        let root = shown.roots.iter().find(|r| cluster.anchor(r) == *anchor)?;
        let head = bundle::verify_bundle(st, &[root], cluster).ok()?;
        Some(Self { cluster: *cluster, statements: vec![st.clone()], stks: head.doc.stks.clone(), head })
    }
    /// Judges a statement that claims to be the next bundle.
    pub fn observe(&self, st: &Statement, admins: Admins<'_>) -> Result<News<NewBundle>, Refusal> {
        if let Some(i) = self.statements.iter().position(|s| s.payload == st.payload) {
            return Ok(if i + 1 == self.statements.len() { News::AlreadyDone } else { News::Stale });
        }
        let refused = |e: bundle::BundleError| Refusal::outside(code(&e), e.to_string());
        let held = &self.head.doc;
        let shown = bundle::verify_link(st, &held.roots, admins, &self.cluster).map_err(refused)?.doc;
        if shown.era == held.era && shown.epoch < held.epoch {
            return Ok(News::Stale);
        }
        require(shown.era != held.era || shown.epoch > held.epoch, 0, "bundle-fork", || {
            format!("two bundles of epoch {}", shown.epoch)
        })?;
        let verified = bundle::follow(&self.head, st, admins, &self.cluster).map_err(refused)?;
        Ok(News::Todo(NewBundle { statement: st.clone(), verified }))
    }
    /// True if `st` says that it comes after the bundle in force, in the same era. Nothing of it is verified.
    pub(crate) fn is_behind(&self, st: &Statement) -> bool {
        let held = &self.head.doc;
        statement::peek::<Bundle>(st).is_ok_and(|b| b.era == held.era && b.epoch > held.epoch)
    }
    /// Puts the next bundle into force.
    pub fn adopt(&mut self, next: NewBundle) {
        self.statements.push(next.statement);
        self.stks.extend(next.verified.doc.stks.iter().cloned());
        self.head = next.verified;
    }
    /// The bundle in force.
    pub fn head(&self) -> &Bundle {
        &self.head.doc
    }
    /// Every link since the join, oldest first.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
    /// True if the bundle in force is the one that `sha256` names, or follows it directly.
    pub(crate) fn covers(&self, sha256: &[u8]) -> bool {
        let prev = &self.head.doc.prev_sha256;
        sha256 == self.head.sha256.0 || (!prev.is_empty() && sha256 == prev)
    }
    /// Statement keys in force at `now`.
    pub(crate) fn stks_at(&self, now: Millis) -> Vec<PublicKey> {
        stk_keys(&self.head.doc, now)
    }
    /// Statement keys that may have signed at `then`, those of earlier links too: for believing again what was saved.
    pub(crate) fn stks_ever(&self, then: Millis) -> Vec<PublicKey> {
        stk_keys(&Bundle { stks: self.stks.clone(), ..Bundle::default() }, then)
    }
}

fn code(e: &bundle::BundleError) -> &'static str {
    use bundle::BundleError as E;
    match e {
        E::Statement(_) | E::TrustedRoot => "bundle-signature",
        E::Cluster => "cluster",
        E::Era { .. } => "era",
        E::CharterVersion(_) => "charter-gap",
        E::Previous | E::Epoch { .. } | E::Empty => "bundle-gap",
        E::RootCount | E::Root | E::Cross | E::StatementKey | E::IntakeKey => "bundle-content",
    }
}
