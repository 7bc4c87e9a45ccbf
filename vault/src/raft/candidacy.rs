//! Whether and when this voter stands for election, beside raft's own timer.
//!
//! Must never: stand without asking first whether the others would vote for it. Whoever hears a leader says no, and then nothing
//! has changed, no term either.

use super::ServerState;
use super::machine::{Machine, Stopped};
use super::voter::Voter;
use std::sync::atomic::Ordering;

impl<M: Machine> Voter<M> {
    /// Whether this voter stands for election when it hears no leader; it does unless told otherwise.
    pub fn stand(&self, stands: bool) {
        self.stands.store(stands, Ordering::Relaxed);
        self.raft.runtime_config().elect(stands);
    }

    /// Asks the others now whether they would vote for this voter, not after an election timeout, and stands if they would.
    /// Nothing happens while it leads or is a candidate, where it only follows, and if it is not to stand.
    pub async fn stand_now(&self) -> Result<(), Stopped> {
        if !self.stands.load(Ordering::Relaxed) || self.status().state != ServerState::Follower {
            return Ok(());
        }
        self.raft.trigger().elect(true).await.map_err(|_| Stopped)
    }
}
