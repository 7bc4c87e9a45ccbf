//! The leader's part in a rotation of the keyring: the next term, records moved to it bit by bit, the end of the old one.

use crate::cluster::Cluster;
use crate::drive::reopen;
use crate::keystore::random32;
use holdfast_transport::failure::Failure;
use holdfast_types::Secret;
use holdfast_vault_core::{Command, State, prepare};
use std::time::{Duration, Instant};

/// A term that was not replaced for another reason is replaced after this time.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Records in one entry.
const BATCH: usize = 256;
/// Of each look, this much goes to records at most: other writes go between.
const SHARE: Duration = Duration::from_millis(200);

/// One look of the leader at the keyring.
pub async fn drive(cluster: &Cluster) -> Result<(), Failure> {
    let now = cluster.now()?;
    let (due, active) = cluster.look(|s| (s.keyring_due(now, LIFE), s.active_term()))?;
    if cluster.opened.load().keyring.active() != active {
        reopen(cluster)?;
    }
    if due {
        let (opened, fresh) = (cluster.opened.load_full(), Secret::take(&mut random32()?));
        let p = cluster.decide(|l, e| prepare::new_term(l, &opened.root, fresh, e))?;
        cluster.commit(p).await?;
        reopen(cluster)?;
    }
    let until = Instant::now() + SHARE;
    while Instant::now() < until {
        let Some(batch) = cluster.decide(|l, e| prepare::rewrap(l, BATCH, e))? else { break };
        cluster.propose(batch).await?;
    }
    let over = cluster.look(State::destroyable_terms)?;
    if !over.is_empty() {
        cluster.propose(Command::KeyringDestroy(over)).await?;
    }
    Ok(())
}
