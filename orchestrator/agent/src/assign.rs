//! One assignment, from the orchestrator's words to a task that runs or a refusal that is told.
//!
//! LAW: a refusal is reported to the vault as the task's end only if the grant is proven to be ours and nothing of it
//! runs here; else whoever replays a grant could end the very task that it started
//! (`a_replayed_grant_is_refused_and_its_task_goes_on`). What was reported so is used up and never runs; else whoever
//! spoils the first delivery could run a task that the vault believes ended
//! (`a_grant_that_was_reported_as_refused_never_runs`).

use crate::believed::Denied;
use crate::node::Node;
use crate::removal;
use crate::tasks::ground::Ground;
use holdfast_orchestrator_core::verify::Gap;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::log_client::LogClient;
use holdfast_types::{Digest, GrantId, Millis, SpiffeId};
use holdfast_wire::statement;
use holdfast_wire::v1::{Assign, AssignResult, ConsistencyRequest, Grant, TaskReport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long an assignment waits for a document that is on its way from the vault, and for proofs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Refusals that a document on its way may cure.
const CURABLE: [&str; 4] = ["status-missing", "status-ahead", "revocations-missing", "denied-unknown"];
/// The first check that knows the grant to be the vault's, and for us.
const OURS: u8 = 4;

/// Judges `assign` that `peer` sent; begins the task, or refuses and tells the vault.
pub async fn carry_out<G: Ground>(node: &Arc<Node<G>>, peer: SpiffeId, assign: Assign) -> AssignResult {
    let assign = Arc::new(assign);
    let grant = assign.grant.as_ref().and_then(|st| statement::peek::<Grant>(st).ok()).unwrap_or_default();
    let result = |accepted, check: &str, reason: String| {
        let outcome = if accepted { "accepted" } else { "refused" };
        metrics::counter!("holdfast_agent_assignments_total", "result" => outcome).increment(1);
        AssignResult { grant_id: grant.grant_id.clone(), accepted, check: check.to_owned(), reason }
    };
    match judge(node, peer, &assign).await {
        Ok(()) => result(true, "", String::new()),
        Err(Denied::Refused(refusal)) => {
            node.accuser.assignment(&refusal, &assign);
            if refusal.check >= OURS {
                refuse(node, &grant, &refusal.to_string()).await;
            }
            result(false, refusal.code, refusal.to_string())
        }
        Err(denied) => {
            tracing::error!(error = %denied, "an assignment was not carried out");
            if !matches!(denied, Denied::Interrupted) {
                refuse(node, &grant, &denied.to_string()).await;
            }
            result(false, "node", denied.to_string())
        }
    }
}

/// Sees to it that the grant, which is ours, will never run, and tells the vault. A grant that was used before is left
/// to whoever used it.
async fn refuse<G: Ground>(node: &Node<G>, grant: &Grant, why: &str) {
    let Some(id) = GrantId::from_slice(&grant.grant_id) else { return };
    match node.believed.use_up(id, Millis(grant.start_before_ms)).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            return tracing::error!(%error, grant = %id, "a refused grant was not used up, so nothing is told of it");
        }
    }
    let report = TaskReport {
        grant_id: grant.grant_id.clone(),
        task_id: grant.task_id.clone(),
        state: "refused".to_owned(),
        exit_code: 0,
        detail: why.chars().take(300).collect(),
        restarts: 0,
    };
    node.reports.put(id, grant.task_gen, report);
}

async fn judge<G: Ground>(node: &Arc<Node<G>>, peer: SpiffeId, assign: &Arc<Assign>) -> Result<(), Denied> {
    let deadline = Instant::now() + PATIENCE;
    let mut changes = node.believed.changes();
    let mut proven = None;
    loop {
        changes.mark_unchanged();
        match node.believed.accept(peer.clone(), assign.clone(), proven.clone()).await {
            Ok(accepted) => {
                node.tasks.begin(accepted);
                // The node may have been removed since it was judged.
                removal::obey(node);
                return Ok(());
            }
            Err(Denied::Unproven(gap)) if Instant::now() < deadline => {
                prove(node, gap.clone()).await?;
                proven = Some(gap);
            }
            Err(Denied::Refused(refusal)) if CURABLE.contains(&refusal.code) => {
                match timeout_at(deadline, changes.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Err(refusal.into()),
                }
            }
            Err(denied) => return Err(denied),
        }
    }
}

/// Fetches the proof that the receipt's log and the held one are one log.
async fn prove<G: Ground>(node: &Arc<Node<G>>, gap: Gap) -> Result<(), Denied> {
    let request = ConsistencyRequest { from_size: gap.from, to_size: gap.to };
    let op = |channel| async move { LogClient::new(channel).consistency(request).await };
    let unproven = |e: Failure| {
        tracing::warn!(code = %e.code, error = %e, "no proof of consistency from the vault");
        Denied::Unproven(gap.clone())
    };
    let reply = node.vault.call(PATIENCE, op).await.map_err(unproven)?;
    let proof: Option<Vec<Digest>> = reply.hashes.iter().map(|h| Digest::from_slice(h)).collect();
    let malformed = || Failure::failed("log-proof", "the proof's hashes are none");
    let proof = proof.ok_or_else(malformed).map_err(unproven)?;
    node.believed.prove(gap, proof).await
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
