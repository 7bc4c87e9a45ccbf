//! The words that every Holdfast program shares: names, ids, digests, times and secrets.
//!
//! Pure: no runtime, no clock, no entropy, no files. Everything here is parsed once, at the edge, and then trusted.

mod digest;
mod ids;
mod names;
mod secret;
mod spiffe;
mod text;
mod time;

pub use digest::{Digest, sha256};
pub use ids::{ClusterId, CommandId, GrantId, IdError, MandateId, NodeId, OperatorId, OrchId, TokenId, VoterId};
pub use names::{NameError, Namespace, SecretName, SecretRef, ServiceName, ServiceRef, TaskId, TrustDomain, Zone};
pub use secret::{Secret, SecretBytes, any_unlocked, may_lock, wipe_stack};
pub use spiffe::{Role, SpiffeError, SpiffeId};
pub use time::{Millis, TimeError, parse_duration, parse_size, rough};

/// Kinds of [`Secret`]: zero-sized names that keep one key from being used as another.
pub mod kind {
    /// A voter's disk key, DK (protocol, key hierarchy).
    pub enum DiskKey {}
    /// One term of the cluster keyring, KR\[t\].
    pub enum KeyringTerm {}
    /// The unlock secret that an operator keeps outside the cluster.
    pub enum UnlockSecret {}
    /// The recovery secret that sleeps offline.
    pub enum RecoverySecret {}
    /// One share of an unlock or recovery secret that was split.
    pub enum ShareBody {}
    /// An HPKE private key (X25519).
    pub enum HpkeKey {}
    /// A pre-shared key for HPKE's PSK mode.
    pub enum Psk {}
    /// An Ed25519 signing seed.
    pub enum SigningSeed {}
    /// The secret part of a join token.
    pub enum TokenSecret {}
    /// The MAC key derived from a join token's secret.
    pub enum TokenMac {}
    /// Key that hedges salts against a cloned random generator.
    pub enum HedgeKey {}
    /// The key of one backup's stream.
    pub enum BackupKey {}
}
