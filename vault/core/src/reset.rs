//! The beginning of a new era: everything that brings a cluster back on one voter decides, in one command.
//!
//! STORED: part of a log entry, see `command.rs`.

use crate::command::{EraKeys, VoterFacts};
use holdfast_types::Digest;
use serde::{Deserialize, Serialize};

/// A new era, as its operators signed it, and the keys that were made for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResetFacts {
    /// The Reset, encoded.
    pub statement: Vec<u8>,
    /// Ids of the operators whose signatures counted.
    pub signers: Vec<String>,
    /// The era's keys.
    pub keys: EraKeys,
    /// The one voter.
    pub voter: VoterFacts,
    /// `H(SubjectPublicKeyInfo)` of its TLS key.
    pub spki: Digest,
    /// The keyring term that it begins: the active one + 1, a precondition.
    pub term: u32,
    /// Every live term boxed to the voter, the new one among them.
    pub terms: Vec<(u32, Vec<u8>)>,
    /// The new term boxed to the recovery key.
    pub recovery_box: Vec<u8>,
    /// Public half of the unlock key; `None` = autolock off.
    pub unlock_pk: Option<[u8; 32]>,
}
