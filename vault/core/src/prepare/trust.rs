//! Signed views of committed state: Status, Revocations, checkpoints, lease extensions, revocations of grants.
//!
//! Status and checkpoints are functions of committed state and add no authority, so they need no commit of their own.

use crate::refusal::{Code, Refusal};
use crate::state::{IdentityState, State};
use holdfast_types::{GrantId, Millis, NodeId, sha256};
use holdfast_wire::keys::StatementSigner;
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::{statement, v1};
use std::time::Duration;

fn unsigned(e: holdfast_wire::keys::SignError) -> Refusal {
    Refusal::new(Code::Unavailable, e.to_string())
}

/// The checkpoint of the log as committed now.
pub fn checkpoint(state: &State, stk: &dyn StatementSigner) -> Result<Vec<u8>, Refusal> {
    let c = state.cluster()?;
    let (size, root) = state.log_head();
    Checkpoint { origin: origin(c.trust_domain.as_str(), c.era), size, root }.sign(stk).map_err(unsigned)
}

/// The revocation list.
pub fn revocations(state: &State, stk: &dyn StatementSigner) -> Result<v1::Statement, Refusal> {
    sign_revocations(&revocation_list(state)?, stk)
}

/// Signs the revocation list: as long as it may be, away from the state that it was made of.
pub fn sign_revocations(list: &v1::Revocations, stk: &dyn StatementSigner) -> Result<v1::Statement, Refusal> {
    statement::sign(list, &[stk]).map_err(unsigned)
}

/// The revocation list, unsigned.
pub fn revocation_list(state: &State) -> Result<v1::Revocations, Refusal> {
    let c = state.cluster()?;
    Ok(v1::Revocations {
        cluster_id: c.id.0.to_vec(),
        era: c.era,
        epoch: state.epoch,
        revoked: state
            .revoked
            .iter()
            .map(|(id, r)| v1::Revocation {
                id: id.clone(),
                not_before_seq: r.not_before_seq,
                spki_sha256: r.keys.iter().filter(|_| r.released).map(|k| k.to_vec()).collect(),
            })
            .collect(),
        denied_digests: state.denied_digests.iter().map(|d| d.to_vec()).collect(),
    })
}

/// What tells the holder of a key of `id` that it was removed: a Status of now, and the Revocations that it names.
///
/// LAW: the list is the whole one, and `id` besides if it is on it no more; whoever else is shown it believes no less than by the
/// one in force (`what_tells_a_machine_of_its_removal_is_the_whole_list_and_no_less`).
///
/// # Errors
/// `id` was not removed.
pub fn removal(
    state: &State,
    stk: &dyn StatementSigner,
    id: &str,
    now: Millis,
    life: Duration,
) -> Result<v1::Removed, Refusal> {
    if !state.identities.get(id).is_some_and(|i| i.state == IdentityState::Removed) {
        return Err(Refusal::changed(format!("{id} was not removed")));
    }
    let mut list = revocation_list(state)?;
    if !list.revoked.iter().any(|r| r.id == id && r.not_before_seq == u64::MAX) {
        list.revoked.push(v1::Revocation { id: id.to_owned(), not_before_seq: u64::MAX, spki_sha256: Vec::new() });
    }
    Ok(v1::Removed {
        status: Some(status_naming(state, stk, &list, now, life)?),
        revocations: Some(statement::sign(&list, &[stk]).map_err(unsigned)?),
    })
}

/// The freshness heartbeat.
pub fn status(state: &State, stk: &dyn StatementSigner, now: Millis, life: Duration) -> Result<v1::Statement, Refusal> {
    status_naming(state, stk, &revocation_list(state)?, now, life)
}

fn status_naming(
    state: &State,
    stk: &dyn StatementSigner,
    list: &v1::Revocations,
    now: Millis,
    life: Duration,
) -> Result<v1::Statement, Refusal> {
    use prost::Message as _;
    let c = state.cluster()?;
    let st = v1::Status {
        cluster_id: c.id.0.to_vec(),
        era: c.era,
        epoch: state.epoch,
        issued_at_ms: now.0,
        expires_at_ms: now.plus(life).0,
        charter_version: state.charter.version,
        bundle_sha256: state.bundle_sha256().map(|d| d.to_vec()).unwrap_or_default(),
        revocations_sha256: sha256(&[&list.encode_to_vec()]).to_vec(),
        policy_version: c.policy_version,
        holders: state
            .leases
            .iter()
            .map(|(ns, l)| v1::Holder { namespace: ns.to_string(), orch_id: l.orch.to_string(), fence: l.fence })
            .collect(),
        lockdown: state.lockdown,
        checkpoint: checkpoint(state, stk)?,
    };
    statement::sign(&st, &[stk]).map_err(unsigned)
}

/// Tells a node the committed lease ends of its grants.
pub fn lease_ext(
    state: &State,
    stk: &dyn StatementSigner,
    node: &NodeId,
    grants: &[GrantId],
    now: Millis,
) -> Result<v1::Statement, Refusal> {
    let c = state.cluster()?;
    let extensions = grants
        .iter()
        .filter_map(|id| {
            state.grant(id).map(|g| v1::Extension { grant_id: id.to_vec(), lease_until_ms: g.lease_until.0 })
        })
        .collect();
    let doc = v1::LeaseExt {
        cluster_id: c.id.0.to_vec(),
        era: c.era,
        node_id: node.to_string(),
        extensions,
        issued_at_ms: now.0,
    };
    statement::sign(&doc, &[stk]).map_err(unsigned)
}

/// Tells a node which of its grants were taken back.
pub fn revoke(
    state: &State,
    stk: &dyn StatementSigner,
    node: &NodeId,
    grants: &[GrantId],
    reason: &str,
    now: Millis,
) -> Result<v1::Statement, Refusal> {
    let c = state.cluster()?;
    let doc = v1::Revoke {
        cluster_id: c.id.0.to_vec(),
        era: c.era,
        node_id: node.to_string(),
        grant_ids: grants.iter().map(|g| g.to_vec()).collect(),
        reason: reason.to_owned(),
        issued_at_ms: now.0,
    };
    statement::sign(&doc, &[stk]).map_err(unsigned)
}
