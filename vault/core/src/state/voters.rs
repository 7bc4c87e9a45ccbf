//! Voters: who takes part, how far each is known to have been, and what each said of itself.
//!
//! LAW: a voter's number is never given to another (`a_voters_number_is_never_given_to_another`).

use super::State;
use holdfast_types::{Digest, VoterId};
use serde::{Deserialize, Serialize};

/// Where a voter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterState {
    /// Part of the cluster: learner or voter, as Raft's membership says.
    Member,
    /// It never takes part again. The row stays, so that its certificate is refused for ever.
    Evicted,
}

/// A voter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoterRow {
    /// Where it stands.
    pub state: VoterState,
    /// X25519 public key to which keyring terms are boxed.
    pub kem_pk: [u8; 32],
    /// Generation of that key.
    pub kem_gen: u32,
    /// Keyring terms boxed to it.
    pub terms: Vec<(u32, Vec<u8>)>,
    /// Where other voters reach it; empty until it says so.
    pub peer_addr: String,
    /// Listener S.
    pub service_addr: String,
    /// Listener J.
    pub join_addr: String,
    /// `H(SubjectPublicKeyInfo)` of its TLS key, approved by operators; `None` for the founding voter until its first
    /// certificate.
    pub spki: Option<Digest>,
    /// Its TLS certificate.
    pub cert: Option<crate::CertFacts>,
    /// The newest boot that it reported.
    pub boot: (u64, [u8; 16]),
    /// Newest unlock epoch that a slot on its disk is sealed to; 0 = none.
    pub unlock_epoch: u64,
    /// Charter version that its recovery slot is sealed for.
    pub recovery_version: u64,
    /// Newest order to replace its disk key that it has carried out.
    pub disk_key_order: u64,
    /// The log up to this index was on its disk.
    pub progress: u64,
    /// It granted a vote, or led, in this Raft term.
    pub vote_term: u64,
}

impl State {
    /// The voters, evicted ones included.
    pub fn all_voters(&self) -> impl Iterator<Item = (VoterId, &VoterRow)> {
        self.voters.iter().map(|(k, v)| (*k, v))
    }
    /// The voters that take part.
    pub fn voters(&self) -> impl Iterator<Item = (VoterId, &VoterRow)> {
        self.all_voters().filter(|(_, v)| v.state == VoterState::Member)
    }
    /// One voter, evicted or not.
    pub fn voter(&self, id: VoterId) -> Option<&VoterRow> {
        self.voters.get(&id)
    }
}
