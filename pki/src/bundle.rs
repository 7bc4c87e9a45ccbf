//! The Bundle: the root-signed document by which every verifier learns of roots, cross-certificates and statement keys.
//!
//! LAW: INV8, a root becomes trusted only through a Bundle signed by a root that is trusted already (test
//! `a_bundle_signed_only_by_the_root_it_adds_is_refused`); the way by the charter (era reset) is not here.

use crate::facts::Facts;
use crate::issue::cluster_of_root;
use crate::keys::SubjectKey;
use holdfast_types::{ClusterId, Millis};
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

/// Believes `next` as the Bundle after `current`: signed by one of its roots, same era, later epoch, and naming it.
pub fn follow(
    current: &Verified<v1::Bundle>,
    next: &v1::Statement,
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let next = verify_bundle(next, &current.doc.roots, cluster)?;
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

/// Believes the last Bundle of `chain`: the first is signed by one of `trusted_roots_der`, each other follows the one
/// before it. So a node that slept through rotations finds its way, and a joining node starts at its pinned root.
pub fn verify_bundle_chain<D: AsRef<[u8]>>(
    chain: &[v1::Statement],
    trusted_roots_der: &[D],
    cluster: &ClusterId,
) -> Result<Verified<v1::Bundle>, BundleError> {
    let (first, rest) = chain.split_first().ok_or(BundleError::Empty)?;
    let first = verify_bundle(first, trusted_roots_der, cluster)?;
    rest.iter().try_fold(first, |current, next| follow(&current, next, cluster))
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
