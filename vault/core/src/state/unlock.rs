//! The unlock key: its epoch, the rotation under way, and the orders that voters carry out on their own disks.
//!
//! Agrees with the model of the rotation: every voter can be opened with a key that the operator was told to keep, at any
//! moment (`every_voter_can_be_opened_at_every_step_of_a_rotation`).

use holdfast_types::{Digest, Millis};
use serde::{Deserialize, Serialize};

/// One unlock key, as the cluster knows it: never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey {
    /// X25519 public key.
    pub pk: [u8; 32],
    /// Shares needed; 0 = one secret.
    pub threshold: u32,
    /// SHA-256 of each share.
    pub share_digests: Vec<Digest>,
}

/// The key that is about to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextUnlock {
    /// Its epoch: the present one + 1.
    pub epoch: u64,
    /// The key.
    pub key: UnlockKey,
    /// Box of the present secret to the next key; empty where there is none.
    pub chain: Vec<u8>,
    /// The present key is in wrong hands: every voter replaces its disk key too.
    pub compromised: bool,
    /// When it began.
    pub since: Millis,
}

/// All about unlocking. STORED with the state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unlock {
    /// The epoch in force; 1 from the founding on.
    pub epoch: u64,
    /// The key in force; `None` = autolock is off.
    pub key: Option<UnlockKey>,
    /// The rotation under way.
    pub next: Option<NextUnlock>,
    /// Box of the secret before the one in force to the one in force, for a voter that slept through the rotation, with the
    /// epoch of the secret that it opens to. Kept until the next rotation.
    pub chain: Option<(u64, Vec<u8>)>,
    /// How many times voters were ordered to replace their disk keys.
    pub disk_key_order: u64,
}
