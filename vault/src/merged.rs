//! What a node or an orchestrator held of the era before, when it comes to the vault of this one.

use crate::cluster::Cluster;
use holdfast_transport::failure::Failure;
use holdfast_vault_core::{Command, prepare};
use holdfast_wire::v1;

/// It may tell of removals and quarantines after the backup that this era began with: what follows from them is committed.
///
/// # Errors
/// It was not committed, and is to be shown again. What is not believed is no error: it is forgotten.
pub async fn merge(cluster: &Cluster, shown: &v1::HeldBefore, by: &str) -> Result<(), Failure> {
    let told = match cluster.look(|s| prepare::merge_revoked(s, shown, by))? {
        Ok(told) => told,
        Err(refusal) => {
            tracing::warn!(by, %refusal, "what it shows of the era before is not believed");
            return Ok(());
        }
    };
    for command in told {
        if !matches!(&command, Command::MergeQuarantined { ids, .. } if ids.is_empty()) {
            tracing::warn!(by, "it shows removals of the era before that were not known: they are made up for");
        }
        cluster.propose(command).await?;
    }
    Ok(())
}
