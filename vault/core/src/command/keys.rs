//! What the registry keeps of keys and certificates, and what the founding of a cluster decides.
//!
//! STORED: parts of log entries, see `command.rs`.

use super::CaKey;
use crate::state::UnlockKey;
use holdfast_types::{ClusterId, Digest, Millis, VoterId};
use serde::{Deserialize, Serialize};

/// A private key at rest: a keyring record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedKey {
    /// Path and name of the key in the key port.
    pub name: String,
    /// The record (layer 1).
    pub record: Vec<u8>,
}

/// What the registry keeps of a certificate: never the certificate itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertFacts {
    /// Place in the identity's renewal chain, from 1.
    pub seq: u64,
    /// Lower-case hex.
    pub serial: String,
    /// `H(SubjectPublicKeyInfo)`.
    pub spki: Digest,
    /// End of validity.
    pub not_after: Millis,
    /// `H` of the root that its issuer is under.
    pub root: Digest,
}

/// A node's HPKE key of one renewal period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HpkeFacts {
    /// The certificate's `seq` it came with.
    pub seq: u64,
    /// X25519 public key.
    pub pk: [u8; 32],
    /// Keyring term that its PSK derives from.
    pub term: u32,
}

/// Everything the founding of a cluster decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Founding {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// Charter v1 as its operators signed it.
    pub charter: Vec<u8>,
    /// The first era's keys.
    pub keys: EraKeys,
    /// The first voter.
    pub voter: VoterFacts,
    /// Keyring term 1, boxed to the first voter.
    pub term_box: Vec<u8>,
    /// The same, boxed to the recovery key.
    pub recovery_box: Vec<u8>,
    /// The unlock key, as operators made it; `None` = autolock off.
    pub unlock: Option<UnlockKey>,
}

/// What an era begins with: one root, one issuer, one statement key, and the Bundle that lists them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EraKeys {
    /// DER of the root.
    pub root_der: Vec<u8>,
    /// End of the root's validity.
    pub root_not_after: Millis,
    /// Its key.
    pub root_key: CaKey,
    /// DER of the issuer.
    pub issuer_der: Vec<u8>,
    /// Its key.
    pub issuer_key: CaKey,
    /// End of the issuer's validity.
    pub issuer_not_after: Millis,
    /// Statement key.
    pub stk: StkFacts,
    /// The era's first Bundle, signed by the root.
    pub bundle: Vec<u8>,
}

/// A statement key with its window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StkFacts {
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// Its seed, sealed.
    pub key: SealedKey,
    /// Start of its window.
    pub from: Millis,
    /// End of its window.
    pub until: Millis,
}

/// A voter as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoterFacts {
    /// Its number, never reused.
    pub id: VoterId,
    /// Public half of its KEM key.
    pub kem_pk: [u8; 32],
    /// Generation of that key.
    pub kem_gen: u32,
}
