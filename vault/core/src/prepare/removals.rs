//! Removals that are later than the backup that an era began with: the era before said so itself, and a node kept it.
//!
//! LAW: a machine that shows something adds nobody, brings nobody back, and removes nobody whom the old era had not revoked
//! (`only_what_the_era_before_signed_after_the_backup_removes_anybody`).

use crate::command::Command;
use crate::refusal::Refusal;
use crate::state::State;
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_types::NodeId;
use holdfast_wire::charter::CharterChain;
use holdfast_wire::statement::{peek, verify};
use holdfast_wire::v1;

/// Most Bundles that are looked at.
const MAX_BUNDLES: usize = 512;
/// Most identities in the list.
const MAX_REVOKED: usize = 1 << 16;

/// What follows from what `by` held of the era before; `None`: nothing that is not known.
///
/// # Errors
/// The list is not that era's, or not signed by a statement key of its newest Bundle that is known or shown.
pub fn merge_removed(state: &State, shown: &v1::HeldBefore, by: &NodeId) -> Result<Option<Command>, Refusal> {
    let (Some(before), Some(st)) = (&state.before, &shown.revocations) else { return Ok(None) };
    let told: v1::Revocations = peek(st)?;
    if told.era != before.era || told.epoch <= before.epoch || state.is_before_over(state.last_at) {
        return Ok(None);
    }
    if shown.bundle_chain.len() > MAX_BUNDLES || told.revoked.len() > MAX_REVOKED {
        return Err(Refusal::invalid("more of the era before than anybody can hold"));
    }
    let cluster = state.cluster()?.id;
    let known = Command::statement(&before.bundle).ok_or_else(|| Refusal::corrupt("bundle of the era before"))?;
    let mut bundle: v1::Bundle = peek(&known)?;
    // A statement key may have been made after the backup. Its Bundle follows one that is known, signed by a root of that.
    let later =
        |st: &&v1::Statement| peek::<v1::Bundle>(st).is_ok_and(|b| b.era == before.era && b.epoch > bundle.epoch);
    let newer: Vec<v1::Statement> = shown.bundle_chain.iter().filter(later).cloned().collect();
    if !newer.is_empty() {
        let charters = CharterChain::verify(&state.charter_chain())?;
        let chain = verify_bundle_chain(&newer, &bundle.roots, Admins::in_force(&charters), &cluster);
        bundle = chain.map_err(|e| Refusal::credential(e.to_string()))?.doc;
    }
    let keys: Vec<v1::PublicKey> = bundle.stks.into_iter().filter_map(|s| s.key).collect();
    let list = verify::<v1::Revocations>(st, &keys, 1)?;
    if list.doc.cluster_id != cluster.0 {
        return Err(Refusal::credential("the revocations are another cluster's"));
    }
    // Where keys are named, those alone do not count: the identity was released from its quarantine.
    let revoked = list.doc.revoked.into_iter().filter(|r| r.spki_sha256.is_empty());
    let mut ids: Vec<String> = revoked.map(|r| r.id).filter(|id| state.is_removable(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(None);
    }
    Ok(Some(Command::MergeRemoved { ids, shown_by: by.clone(), sha256: list.sha256 }))
}
