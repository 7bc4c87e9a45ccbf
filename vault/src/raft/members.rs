//! Who takes part in raft: learners and voters come and go, one change at a time.
//!
//! Must never: change the voters but by joint consensus, or keep as a learner who has been taken out.

use super::Types;
use super::machine::Machine;
use super::proposer::ProposeError;
use super::voter::Voter;
use holdfast_types::VoterId;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};

/// Raft's membership, as this voter knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes. While a change of the voters is half done, those before it: setting the voters again finishes it.
    pub voters: BTreeSet<VoterId>,
    /// Who only follows.
    pub learners: BTreeSet<VoterId>,
    /// Where each is reached.
    pub addrs: BTreeMap<VoterId, String>,
}

impl Members {
    /// How many of the voters decide.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

type Changed = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

/// A change that the membership did not take is tried again by the leader's next look at it.
fn outcome(changed: Changed) -> Result<(), ProposeError> {
    match changed {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(f))) => Err(elsewhere(f)),
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unknown),
        Err(RaftError::APIError(e)) => {
            tracing::warn!(error = %e, "the membership was not changed");
            Err(ProposeError::Unavailable)
        }
        Err(RaftError::Fatal(e)) => {
            tracing::error!(error = %e, "raft has stopped");
            Err(ProposeError::Stopped)
        }
    }
}

fn elsewhere(f: ForwardToLeader<Types>) -> ProposeError {
    match (f.leader_id, f.leader_node) {
        (Some(leader), Some(node)) => ProposeError::NotLeader { leader, address: node.addr },
        _ => ProposeError::Unavailable,
    }
}

impl<M: Machine> Voter<M> {
    /// Adds a learner; it gets the log, or a snapshot first. Returns once the change is committed, not once it has caught up.
    pub async fn add_learner(&self, id: VoterId, addr: &str) -> Result<(), ProposeError> {
        let _one_at_a_time = self.changing.lock().await;
        outcome(self.raft.add_learner(id.0, BasicNode::new(addr), false).await)
    }

    /// Takes out one that only follows.
    pub async fn remove_learner(&self, id: VoterId) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await
    }

    /// Makes `voters` those who vote, by joint consensus. New ones have to be learners; whoever is left out is out altogether.
    pub async fn set_voters(&self, voters: &BTreeSet<VoterId>) -> Result<(), ProposeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters.iter().map(|v| v.0).collect())).await
    }

    /// Reaches a member at `addr` from now on.
    pub async fn set_address(&self, id: VoterId, addr: &str) -> Result<(), ProposeError> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id.0, BasicNode::new(addr))]))).await?;
        self.network.moved(id.0, addr);
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let _one_at_a_time = self.changing.lock().await;
        outcome(self.raft.change_membership(change, false).await)
    }

    /// Who takes part, as far as this voter knows.
    pub fn members(&self) -> Members {
        let stored = self.raft.metrics().borrow_watched().membership_config.clone();
        let membership = stored.membership();
        let voters = membership.get_joint_config().first().into_iter().flatten().map(|v| VoterId(*v)).collect();
        let learners = membership.learner_ids().map(VoterId).collect();
        let addrs = membership.nodes().map(|(id, node)| (VoterId(*id), node.addr.clone())).collect();
        Members { voters, learners, addrs }
    }

    /// How far each member's log is known to match, on the leader; empty elsewhere.
    pub fn matched(&self) -> BTreeMap<VoterId, u64> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let known = m.replication.iter().flatten().filter_map(|(id, at)| at.map(|l| (VoterId(*id), l.index)));
        known.collect()
    }

    /// Asks `to` to lead in our place; nothing happens if we do not lead.
    pub async fn transfer_leader(&self, to: VoterId) -> Result<(), ProposeError> {
        self.raft.trigger().transfer_leader(to.0).await.map_err(|_| ProposeError::Stopped)
    }

    /// Whether this voter stands for election when it hears no leader; it does unless told otherwise.
    pub fn stand(&self, stands: bool) {
        self.raft.runtime_config().elect(stands);
    }

    /// The newest term in which this voter voted or led; it is on the disk.
    pub fn last_vote_term(&self) -> u64 {
        self.raft.metrics().borrow_watched().vote.leader_id.term
    }
}
