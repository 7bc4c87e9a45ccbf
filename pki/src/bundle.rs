//! The Bundle: the document by which every verifier learns of roots, cross-certificates and statement keys. A root of the
//! Bundle before signs it or, where none can, as many Admins as change the charter.
//!
//! LAW: INV8, a root becomes trusted only through a Bundle signed by a root that is trusted already, or by the Admins of a
//! charter that is not older than the one held (tests `a_bundle_signed_only_by_the_root_it_adds_is_refused`,
//! `admins_of_a_charter_that_was_replaced_add_no_root`); the era reset is not here.

use crate::facts::Facts;
use crate::issue::cluster_of_root;
use crate::keys::SubjectKey;
use holdfast_types::{ClusterId, Millis};
use holdfast_wire::charter::{self, CharterChain};
use holdfast_wire::keys::{ALG_ED25519, ALG_P256};
use holdfast_wire::statement::{self, StatementError, Verified};
use holdfast_wire::v1;
use std::collections::BTreeSet;

/// Most roots that may be trusted at once (protocol, root rotation).
pub const MAX_ROOTS: usize = 3;

/// Why a Bundle is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A root that is said to be trusted already cannot be used.
    #[error("a trusted root is not a P-256 certificate that can be read")]
    TrustedRoot,
    /// Type, signatures or encoding.
    #[error("the bundle: {0}")]
    Statement(#[from] StatementError),
    /// For another cluster.
    #[error("the bundle is for another cluster")]
    Cluster,
    /// None, too many, or the same root twice.
    #[error("the bundle must list 1 to {MAX_ROOTS} different roots")]
    RootCount,
    /// A listed root is not a root of this cluster.
    #[error("the bundle lists a root that is not a root of this cluster")]
    Root,
    /// A listed cross-certificate is not a CA certificate.
    #[error("the bundle lists a cross-certificate that is not a CA certificate")]
    Cross,
    /// A statement key is not Ed25519, or its window is empty.
    #[error("the bundle lists a statement key that is not Ed25519 or is never valid")]
    StatementKey,
    /// The intake key is not an X25519 key.
    #[error("the bundle's intake key must have 32 bytes")]
    IntakeKey,
    /// The era differs: only a charter-signed reset changes it.
    #[error("the bundle is of era {got}, ours is {ours}; only an operators' reset changes the era")]
    Era {
        /// The era we are in.
        ours: u64,
        /// The era of the bundle.
        got: u64,
    },
    /// The epoch did not grow: an old bundle, or a replay.
    #[error("the bundle's epoch {got} is not newer than {ours}")]
    Epoch {
        /// The epoch we are at.
        ours: u64,
        /// The epoch of the bundle.
        got: u64,
    },
    /// Admins signed it under a charter that is not known here.
    #[error("the bundle names charter version {0}, which was not shown")]
    CharterVersion(u64),
    /// It does not continue the bundle before it.
    #[error("the bundle does not follow the one before it")]
    Previous,
    /// No bundle at all.
    #[error("the chain of bundles is empty")]
    Empty,
}

/// The uncompressed P-256 point in a certificate, if that is its key.
pub fn sec1_of_cert(der: &[u8]) -> Option<Vec<u8>> {
    let facts = Facts::read(der).ok()?;
    SubjectKey::from_spki(&facts.spki).ok()?.sec1().map(<[u8]>::to_vec)
}

/// Believes a Bundle of `cluster` if one of `trusted_roots_der` signed it. Era and epoch are not compared with anything
/// here: see [`follow`].
pub fn verify_bundle<D: AsRef<[u8]>>(
    st: &v1::Statement,
    trusted_roots_der: &[D],
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let keys = trusted_roots_der
        .iter()
        .map(|der| Some(v1::PublicKey { alg: ALG_P256, key: sec1_of_cert(der.as_ref())? }))
        .collect::<Option<Vec<_>>>()
        .ok_or(BundleError::TrustedRoot)?;
    let verified = statement::verify::<v1::Bundle>(st, &keys, 1)?;
    check_content(&verified.doc, cluster)?;
    Ok(verified)
}

/// The charters by which a Bundle is judged that Admins signed in the place of roots.
///
/// Whoever may have been an Admin once has no say over a verifier that knows a later charter: what is shown to it is judged by
/// no charter older than the one it held when it was shown.
#[derive(Debug, Clone, Copy)]
pub struct Admins<'a> {
    charters: &'a CharterChain,
    floor: u64,
}
impl<'a> Admins<'a> {
    /// For what is shown now: by the charter in force.
    pub fn in_force(charters: &'a CharterChain) -> Self {
        Self::since(charters, charters.head().version)
    }
    /// For what is shown with newer charters: by the one that it names, and by none older than `version`, which was held before.
    pub fn since(charters: &'a CharterChain, version: u64) -> Self {
        Self { charters, floor: version }
    }
    /// For a chain that was believed before, or that nothing was believed before: by the charter that each names.
    pub fn ever(charters: &'a CharterChain) -> Self {
        Self::since(charters, 0)
    }
    /// For what follows a Bundle that names `version`: what is named never goes back.
    #[must_use]
    pub fn after(self, version: u64) -> Self {
        Self { floor: self.floor.max(version), ..self }
    }
    fn verify(&self, st: &v1::Statement, named: u64) -> Result<Verified<v1::Bundle>, BundleError> {
        let known = named <= self.charters.head().version;
        let charter = self.charters.version(named.max(self.floor)).filter(|_| known);
        Ok(charter::verify_bundle(&charter.ok_or(BundleError::CharterVersion(named))?, st)?)
    }
}

/// Believes a Bundle of `cluster` if one of `trusted_roots_der` signed it or, where it names a charter, if enough Admins did.
/// Era and epoch are not compared with anything here: see [`follow`].
pub fn verify_link<D: AsRef<[u8]>>(
    st: &v1::Statement,
    trusted_roots_der: &[D],
    admins: Admins<'_>,
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let named = statement::peek::<v1::Bundle>(st)?.charter_version;
    if named == 0 {
        return verify_bundle(st, trusted_roots_der, cluster);
    }
    let verified = admins.verify(st, named)?;
    check_content(&verified.doc, cluster)?;
    Ok(verified)
}

/// Believes `next` as the Bundle after `current`: signed by one of its roots, or by Admins where it says so, same era, later
/// epoch, and naming it.
pub fn follow(
    current: &Verified<v1::Bundle>,
    next: &v1::Statement,
    admins: Admins<'_>,
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let next = verify_link(next, &current.doc.roots, admins, cluster)?;
    let (ours, got) = (&current.doc, &next.doc);
    if got.era != ours.era {
        return Err(BundleError::Era { ours: ours.era, got: got.era });
    }
    if got.epoch <= ours.epoch {
        return Err(BundleError::Epoch { ours: ours.epoch, got: got.epoch });
    }
    if got.prev_sha256 != current.sha256.as_bytes() {
        return Err(BundleError::Previous);
    }
    Ok(next)
}

/// Believes the last Bundle of `chain`: the first is signed by one of `trusted_roots_der`, or by Admins, each other follows
/// the one before it. So a node that slept through rotations finds its way, and a joining node starts at its pinned root.
pub fn verify_bundle_chain<D: AsRef<[u8]>>(
    chain: &[v1::Statement],
    trusted_roots_der: &[D],
    admins: Admins<'_>,
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let (first, rest) = chain.split_first().ok_or(BundleError::Empty)?;
    let first = verify_link(first, trusted_roots_der, admins, cluster)?;
    let admins = admins.after(first.doc.charter_version);
    let last = rest.iter().try_fold((first, admins), |(current, admins), next| {
        let next = follow(&current, next, admins, cluster)?;
        let admins = admins.after(next.doc.charter_version);
        Ok::<_, BundleError>((next, admins))
    });
    last.map(|(bundle, _)| bundle)
}

/// The statement keys that are in their window at `now`: from its start on, before its end.
pub fn stk_keys(bundle: &v1::Bundle, now: Millis) -> Vec<v1::PublicKey> {
    let in_window = |s: &&v1::Stk| s.from_ms <= now.0 && now.0 < s.until_ms;
    bundle.stks.iter().filter(in_window).filter_map(|s| s.key.clone()).collect()
}

fn check_content(bundle: &v1::Bundle, cluster: &ClusterId) -> Result<(), BundleError> {
    if bundle.cluster_id != cluster.0 {
        return Err(BundleError::Cluster);
    }
    let distinct: BTreeSet<&[u8]> = bundle.roots.iter().map(Vec::as_slice).collect();
    if bundle.roots.is_empty() || bundle.roots.len() > MAX_ROOTS || distinct.len() != bundle.roots.len() {
        return Err(BundleError::RootCount);
    }
    if !bundle.roots.iter().all(|r| cluster_of_root(r) == Some(*cluster) && sec1_of_cert(r).is_some()) {
        return Err(BundleError::Root);
    }
    if !bundle.cross.iter().all(|x| Facts::read(x).is_ok_and(|f| f.ca)) {
        return Err(BundleError::Cross);
    }
    let usable = |s: &v1::Stk| {
        s.from_ms < s.until_ms && s.key.as_ref().is_some_and(|k| k.alg == ALG_ED25519 && k.key.len() == 32)
    };
    if !bundle.stks.iter().all(usable) {
        return Err(BundleError::StatementKey);
    }
    if bundle.intake_pk.len() != 32 {
        return Err(BundleError::IntakeKey);
    }
    Ok(())
}
