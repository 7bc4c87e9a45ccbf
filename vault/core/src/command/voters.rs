//! What commands say of voters and of the keyring that they share. Part of [`super::Command`], and stored with it.

use holdfast_types::{SecretRef, TokenId, VoterId};
use serde::{Deserialize, Serialize};

/// What a voter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSaid {
    /// Where other voters reach it.
    pub peer_addr: String,
    /// Listener S.
    pub service_addr: String,
    /// Listener J.
    pub join_addr: String,
    /// Which start of its process said it, and that process's random mark.
    pub boot: (u64, [u8; 16]),
    /// Newest unlock epoch that a slot on its disk is sealed to; 0 = none.
    pub unlock_epoch: u64,
    /// Charter version that its recovery slot is sealed for.
    pub recovery_version: u64,
    /// Newest order to replace its disk key that it has carried out.
    pub disk_key_order: u64,
    /// Its KEM key and the generation of it.
    pub kem: (u32, [u8; 32]),
    /// Serial number of the certificate that it shows; empty: not said.
    pub serial: String,
}

/// How far one voter is known to have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterMark {
    /// Which voter.
    pub id: VoterId,
    /// The log up to this index was on its disk.
    pub index: u64,
    /// It granted a vote, or led, in this Raft term.
    pub vote_term: u64,
}

/// A keyring term, with everything that follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTerm {
    /// Its number: the active one + 1, a precondition.
    pub term: u32,
    /// The term boxed to each voter's KEM key, with the key's generation: preconditions.
    pub boxes: Vec<(VoterId, u32, Vec<u8>)>,
    /// The term boxed to the recovery key.
    pub recovery_box: Vec<u8>,
    /// The Bundle with the term's intake key, signed by a root.
    pub bundle: Vec<u8>,
}

/// Which record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordAt {
    /// A secret's newest version.
    Secret(SecretRef),
    /// A join token's MAC key.
    Token(TokenId),
    /// A CA key or statement key, by its name.
    Key(String),
}

/// A record sealed anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rewrapped {
    /// Which.
    pub at: RecordAt,
    /// Its revision: a precondition.
    pub rev: u64,
    /// The record under the active term.
    #[serde(with = "crate::bytes")]
    pub record: Vec<u8>,
}
