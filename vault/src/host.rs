//! What other voters may ask of this one: how far they were, to take a report, and leaves of the log.

use crate::members;
use crate::peers::Host;
use crate::raft::Receiver;
use crate::standing::Standing;
use holdfast_transport::failure::Failure;
use holdfast_types::VoterId;
use holdfast_vault_core::VoterMark;
use holdfast_wire::v1;
use std::sync::Arc;

#[tonic::async_trait]
impl Host for Standing {
    fn voter(&self) -> Option<Arc<dyn Receiver>> {
        Some(self.voter.receiver())
    }

    fn high_water(&self, of: VoterId) -> Result<v1::HighWaterReply, Failure> {
        let known = self.voter.machine().read(|r| r.state().high_water(of)).map_err(crate::failure::stopped)?;
        let (index, vote_term, boot, evicted) = known;
        // One that raft may need still takes part until it is out.
        let known = (index, vote_term, boot, evicted && !self.voter.members().has(of));
        // A leader that a majority does not hear may know of entries that another one has replaced since.
        let leads = members::is_heard(self.id, &self.voter);
        let matched = self.voter.matched().get(&of).copied().filter(|_| leads).unwrap_or(0);
        Ok(furthest(of, known, matched, &self.peers.granted()))
    }

    async fn report(&self, from: VoterId, report: v1::VoterReport) -> Result<v1::VoterReportReply, Failure> {
        let not_here = || Failure::unavailable("no-leader", "this voter does not lead");
        self.cluster().ok_or_else(not_here)?.take_report(from, &report, None).await
    }

    fn spoke_as_another(&self, id: VoterId) {
        self.unsaid.impostor(id);
    }

    fn backfill(&self, from: u64, until: u64) -> Result<Vec<v1::LeafData>, Failure> {
        let mut leaves = Vec::new();
        for index in from..until {
            let raw = self.audit.leaf(index).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
            let Some(raw) = raw else { break };
            let Some((salt, entry)) = raw.expose().split_at_checked(32) else { break };
            leaves.push(v1::LeafData { index, salt: salt.to_vec(), entry: entry.to_vec() });
        }
        Ok(leaves)
    }
}

/// Committed state knows of the last seconds at most; what a leader sees, and who voted for it, is newer.
fn furthest(
    of: VoterId,
    (index, vote_term, boot, evicted): (u64, u64, (u64, [u8; 16]), bool),
    matched: u64,
    granted: &[VoterMark],
) -> v1::HighWaterReply {
    let voted = granted.iter().filter(|m| m.id == of).map(|m| m.vote_term).max().unwrap_or(0);
    v1::HighWaterReply {
        last_index: index.max(matched),
        vote_term: vote_term.max(voted),
        boot: (boot.0 > 0).then(|| v1::Boot { count: boot.0, id: boot.1.to_vec() }),
        evicted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_known_of_a_voter_the_furthest_counts() {
        let mark = |id, vote_term| VoterMark { id: VoterId(id), index: 0, vote_term };
        let marks = [mark(1, 50), mark(2, 9), mark(2, 8)];
        let told = furthest(VoterId(2), (10, 3, (4, [7; 16]), false), 12, &marks);
        assert_eq!((told.last_index, told.vote_term, told.evicted), (12, 9, false));
        assert_eq!(told.boot, Some(v1::Boot { count: 4, id: vec![7; 16] }));
        let told = furthest(VoterId(2), (10, 30, (0, [0; 16]), true), 0, &[]);
        assert_eq!((told.last_index, told.vote_term, told.evicted, told.boot), (10, 30, true, None));
    }
}
