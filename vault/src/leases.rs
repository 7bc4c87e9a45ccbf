//! What a voter does once when it begins to lead: leases that nobody could keep meanwhile go on.
//!
//! Must never: keep a lease before that in its term, or whoever asks first after an outage would be the next holder.

use crate::cluster::Cluster;
use crate::pace::{self, Pace};
use holdfast_transport::failure::Failure;
use holdfast_types::Millis;
use holdfast_vault_core::{Command, State};
use tokio::sync::Mutex;

/// What the leader minds about leases of orchestrators.
pub struct Leases {
    /// How fast one orchestrator may ask for its own.
    pub pace: Pace,
    before: Mutex<Before>,
}

/// What is known of the time before this voter's lead.
struct Before {
    /// The time of the last entry, as long as this voter did not begin to lead after it.
    heard: Millis,
    /// The Raft term in which it began to lead last.
    term: Option<u64>,
}

impl Leases {
    /// Of a voter whose last entry is of the time `heard`, and that has not led yet.
    pub fn after(heard: Millis) -> Self {
        let pace = Pace::new(pace::LEASES.0, pace::LEASES.1);
        Self { pace, before: Mutex::new(Before { heard, term: None }) }
    }
}

/// Extends the leases, once in each term that this voter leads; before it keeps the first one.
pub async fn lead(cluster: &Cluster) -> Result<(), Failure> {
    let mut before = cluster.leases.before.lock().await;
    let term = Some(cluster.voter.status().term);
    if before.term == term {
        return Ok(());
    }
    let life_ms = i64::try_from(cluster.config.lives.lease.as_millis()).unwrap_or(i64::MAX);
    cluster.propose(Command::ExtendLeases { since: before.heard, life_ms }).await?;
    before.term = term;
    Ok(())
}

/// Time passed in which leases could be kept: somebody else leads, or this voter has led for a while.
pub fn goes_on(cluster: &Cluster) -> Result<(), Failure> {
    let heard = cluster.look(State::last_heard)?;
    let (leads, term) = (cluster.leads(), cluster.voter.status().term);
    // One that leads and has not begun remembers what was before.
    if let Ok(mut before) = cluster.leases.before.try_lock()
        && (!leads || before.term == Some(term))
    {
        before.heard = heard;
    }
    Ok(())
}
