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
    /// Who votes, in each configuration that has to agree: one, or two while a change of the voters is half done, of which
    /// the last is the one to come.
    pub configs: Vec<BTreeSet<VoterId>>,
    /// Who only follows.
    pub learners: BTreeSet<VoterId>,
    /// Who is taken out by a change that is not known to be committed: it may be needed still.
    pub leaving: BTreeSet<VoterId>,
    /// Where each is reached.
    pub addrs: BTreeMap<VoterId, String>,
}

impl Members {
    /// Who votes, in whichever configuration.
    pub fn voters(&self) -> BTreeSet<VoterId> {
        self.configs.iter().flatten().copied().collect()
    }

    /// Who votes once the change that is half done is whole.
    pub fn voters_to_be(&self) -> BTreeSet<VoterId> {
        self.configs.last().cloned().unwrap_or_default()
    }

    /// Whether a change of the voters is half done: setting the voters again finishes it.
    pub fn is_joint(&self) -> bool {
        self.configs.len() > 1
    }

    /// Whether raft may still need to hear `id`.
    pub fn has(&self, id: VoterId) -> bool {
        self.configs.iter().chain([&self.learners, &self.leaving]).any(|c| c.contains(&id))
    }

    /// Whether `who` are a majority, of each configuration that there is.
    pub fn are_decided_by(&self, who: &BTreeSet<VoterId>) -> bool {
        self.configs.iter().all(|c| decides(who, c))
    }
}

/// Whether `who` are a majority of `voters`.
pub fn decides(who: &BTreeSet<VoterId>, voters: &BTreeSet<VoterId>) -> bool {
    voters.intersection(who).count() > voters.len() / 2
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
        let metrics = self.raft.metrics();
        let (stored, committed) = {
            let m = metrics.borrow_watched();
            (m.membership_config.clone(), m.committed_membership_config.clone())
        };
        let membership = stored.membership();
        let ids = |c: &BTreeSet<u64>| c.iter().map(|v| VoterId(*v)).collect::<BTreeSet<_>>();
        let addrs: BTreeMap<_, _> = membership.nodes().map(|(id, node)| (VoterId(*id), node.addr.clone())).collect();
        let before = committed.membership().nodes().map(|(id, _)| VoterId(*id));
        Members {
            configs: membership.get_joint_config().iter().map(ids).collect(),
            learners: membership.learner_ids().map(VoterId).collect(),
            leaving: before.filter(|id| !addrs.contains_key(id)).collect(),
            addrs,
        }
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

    /// The newest term in which this voter voted or led; it is on the disk.
    pub fn last_vote_term(&self) -> u64 {
        self.raft.metrics().borrow_watched().vote.leader_id.term
    }
}
