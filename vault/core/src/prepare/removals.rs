//! Removals and quarantines that are later than the backup that an era began with: the era before said so itself, and a node or
//! an orchestrator kept it.
//!
//! LAW: a machine that shows something adds nobody, brings nobody back, and removes nobody whom the old era had not removed
//! (`only_what_the_era_before_signed_after_the_backup_removes_anybody`,
//! `who_was_in_quarantine_after_the_backup_comes_back_in_quarantine`). A quarantine can have ended in the old era, and a removal
//! cannot: so it is taken from no list that is older than one that was shown
//! (`a_quarantine_that_was_over_in_the_era_before_is_not_brought_back_by_an_older_list`). An older one that comes first does it,
//! until operators release whom it names.

use crate::command::Command;
use crate::refusal::Refusal;
use crate::state::State;
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_wire::before::MOST_BUNDLES;
use holdfast_wire::charter::CharterChain;
use holdfast_wire::statement::{peek, verify};
use holdfast_wire::v1;

/// Most identities in the list.
const MAX_REVOKED: usize = 1 << 16;

/// By this generation the list names whoever was removed: no certificate of it counts. A quarantine names the next one.
const NO_MORE: u64 = u64::MAX;

/// What follows from what `by` held of the era before; nothing: it tells nothing that is not known.
///
/// # Errors
/// The list is not that era's, or not signed by a statement key of its newest Bundle that is known or shown.
pub fn merge_revoked(state: &State, shown: &v1::HeldBefore, by: &str) -> Result<Vec<Command>, Refusal> {
    let (Some(before), Some(st)) = (&state.before, &shown.revocations) else { return Ok(Vec::new()) };
    let told: v1::Revocations = peek(st)?;
    if told.era != before.era || told.epoch <= before.epoch || state.is_before_over(state.last_at) {
        return Ok(Vec::new());
    }
    if shown.bundle_chain.len() > MOST_BUNDLES || told.revoked.len() > MAX_REVOKED {
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
    let (removed, stopped): (Vec<_>, Vec<_>) = revoked.partition(|r| r.not_before_seq == NO_MORE);
    let removed = ids(removed, |id| state.is_removable(id));
    let stopped = if told.epoch < before.quarantines_of {
        Vec::new()
    } else {
        ids(stopped, |id| state.is_to_be_quarantined(id) && removed.binary_search(id).is_err())
    };
    let (shown_by, sha256, epoch) = (by.to_owned(), list.sha256, told.epoch);
    let mut merged = Vec::new();
    if !removed.is_empty() {
        merged.push(Command::MergeRemoved { ids: removed, shown_by: shown_by.clone(), sha256 });
    }
    if !stopped.is_empty() || epoch > before.quarantines_of {
        merged.push(Command::MergeQuarantined { ids: stopped, shown_by, sha256, epoch });
    }
    Ok(merged)
}

/// Whom it concerns, each once.
fn ids(revoked: Vec<v1::Revocation>, concerns: impl Fn(&String) -> bool) -> Vec<String> {
    let mut ids: Vec<String> = revoked.into_iter().map(|r| r.id).filter(concerns).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
