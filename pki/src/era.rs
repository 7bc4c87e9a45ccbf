//! A new era: what a verifier that trusts an older one believes of it (protocol, disaster).
//!
//! It may be shown by anybody: it verifies from the charter that is held already. LAW: only as many Admins as change the
//! charter begin an era, of this cluster, after the one held, and its bundles begin with exactly the roots and keys that
//! they signed (`a_new_era_takes_enough_admins_this_cluster_and_a_later_number`).

use crate::bundle::{Admins, BundleError, verify_bundle_chain};
use holdfast_types::Digest;
use holdfast_wire::charter::{CharterChain, CharterError, verify_reset};
use holdfast_wire::statement::{self, News, StatementError, Verified};
use holdfast_wire::v1::{Bundle, Charter, Reset, TrustView};

/// Why an era is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EraError {
    /// The charters do not follow the one that is held.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// Too few Admins signed the reset, or it cannot be read.
    #[error("the reset: {0}")]
    Reset(StatementError),
    /// For another cluster.
    #[error("the reset is for another cluster")]
    Cluster,
    /// It asks for a charter that was not shown.
    #[error("the reset asks for charter version {0}, which was not shown")]
    CharterVersion(u64),
    /// The bundles do not verify.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundles are not those of the reset.
    #[error("the first bundle of the era lists other roots or keys than the operators signed")]
    OtherRoots,
}

/// A verified era.
#[derive(Debug, Clone)]
pub struct Era {
    /// The charters held, and what follows them.
    pub charters: CharterChain,
    /// What its operators signed.
    pub reset: Reset,
    /// The bundle in force.
    pub bundle: Verified<Bundle>,
    /// Pins the era's first root, as a join token would.
    pub anchor: Digest,
}

/// Judges what `shown` says of an era after `era`, by the charters that are held; `None` if it tells of none.
pub fn verify_era(held: &CharterChain, era: u64, shown: &TrustView) -> Result<Option<Era>, EraError> {
    let Some(newest) = shown.resets.last() else { return Ok(None) };
    if statement::peek::<Reset>(newest).map_err(EraError::Reset)?.era <= era {
        return Ok(None);
    }
    // Whoever slept may have missed charters of the era too: the reset was signed under one held now or shown after it.
    let mut charters = held.clone();
    let mut signed = vec![(charters.head().clone(), verify_reset(charters.head(), newest))];
    for st in &shown.charter_chain {
        if let News::Todo(next) = charters.observe(st)? {
            charters.adopt(next);
            signed.push((charters.head().clone(), verify_reset(charters.head(), newest)));
        }
    }
    let reset = by_admins(signed)?;
    if reset.cluster_id != charters.cluster().0 {
        return Err(EraError::Cluster);
    }
    // Whoever was an Admin before the charter that is held here signs nothing of the new era.
    let admins = Admins::since(&charters, held.head().version);
    let bundle = verify_bundle_chain(&shown.bundle_chain, &reset.roots, admins, charters.cluster())?;
    let first = shown.bundle_chain.first().ok_or(BundleError::Empty)?;
    let first: Bundle = statement::peek(first).map_err(BundleError::from)?;
    let root = reset.roots.first().filter(|_| {
        first.era == reset.era
            && first.roots == reset.roots
            && first.stks == reset.stks
            && first.cross.is_empty()
            && first.charter_version == 0
    });
    let anchor = charters.cluster().anchor(root.ok_or(EraError::OtherRoots)?);
    Ok(Some(Era { charters, reset, bundle, anchor }))
}

/// The reset, if it was signed under one of these charters; else why not under the newest.
fn by_admins(signed: Vec<(Charter, Result<Verified<Reset>, StatementError>)>) -> Result<Reset, EraError> {
    let mut why = EraError::Cluster;
    for (charter, verified) in signed {
        match verified {
            Ok(v) if charter.version >= v.doc.min_charter_version => return Ok(v.doc),
            Ok(v) => why = EraError::CharterVersion(v.doc.min_charter_version),
            Err(e) => why = EraError::Reset(e),
        }
    }
    Err(why)
}
