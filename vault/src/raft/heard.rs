//! Whom the leader hears.

use super::machine::Machine;
use super::voter::Voter;
use holdfast_types::VoterId;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use std::collections::BTreeMap;
use std::time::Duration;

impl<M: Machine> Voter<M> {
    /// For how long each member has not answered, on the leader; empty elsewhere, and without those that never answered.
    pub fn unheard(&self) -> BTreeMap<VoterId, Duration> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let heard = m.heartbeat.iter().flatten();
        heard.filter_map(|(id, at)| at.as_ref().map(|at| (VoterId(*id), at.elapsed()))).collect()
    }
}
