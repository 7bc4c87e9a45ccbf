//! The voter's disk: who may open it (`slots`), who the voter is (`ident`), the keys that seal everything else and how they are
//! replaced (`rotation`), and how it is known that an older copy was put back (`boot`).
//!
//! Must never: write a disk key in clear (but for the `plain` slot that the operator asked for), or let the unlock secret come near.

pub mod attempts;
pub mod boot;
pub mod chain;
pub mod credential;
pub mod duty;
mod envelope;
#[cfg(test)]
mod files_tests;
pub mod hsm;
pub mod ident;
pub mod keys;
pub mod rotation;
pub mod slots;
#[cfg(test)]
pub(crate) mod testing;

use std::path::PathBuf;
use zeroize::Zeroizing;

/// Why a file or a store of this voter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("{} does not exist: has this voter been initialised?", .0.display())]
    Missing(PathBuf),
    /// Cut short, altered, or not what it says it is.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// Which file or store.
        what: &'static str,
        /// What was found.
        why: &'static str,
    },
    /// Written by a version that this one does not know.
    #[error("{what} has format {found}, which this version does not know")]
    Format {
        /// Which file.
        what: &'static str,
        /// The format number found.
        found: u8,
    },
    /// Another cluster's file.
    #[error("{what} belongs to another cluster")]
    OtherCluster {
        /// Which file or store.
        what: &'static str,
    },
    /// Another voter's file.
    #[error("{what} belongs to another voter")]
    OtherVoter {
        /// Which file or store.
        what: &'static str,
    },
    /// The disk key at hand does not open this disk.
    #[error("bad key: it does not open this voter's disk")]
    BadKey,
    /// No slot of the kind asked for.
    #[error("no slot: no such recipient in the slots file")]
    NoSlot,
    /// The slots are sealed to a credential that this process was not given.
    #[error("no slot: the credential `dk-slot` is not among this process's credentials")]
    NoCredential,
    /// The credential is not the one that the slots are sealed to, or none at all.
    #[error("bad key: the credential `dk-slot` {0}")]
    BadCredential(&'static str),
    /// The token did not wrap or unwrap the disk key.
    #[error("the token: {0}")]
    Token(#[from] holdfast_hsm::KeyError),
    /// A box could not be made for a recipient.
    #[error("cannot seal the disk key to this recipient: {0}")]
    Recipient(#[from] holdfast_wire::boxes::BoxError),
    /// The system's entropy source failed.
    #[error("the system gives no random bytes")]
    Entropy,
    /// The file system refused.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Keyspace numbers: part of the context of every record on the disk. STORED: never reuse one.
pub mod keyspace {
    /// Raft log entries, by index.
    pub const LOG: u8 = 1;
    /// Vote, committed, last purged, snapshot header, owner mark.
    pub const META: u8 = 2;
    /// Snapshot chunks.
    pub const SNAP: u8 = 3;
    /// Audit leaves and Merkle nodes.
    pub const AUDIT: u8 = 4;
    /// The identity file.
    pub const IDENT: u8 = 5;
    /// The check record in the slots file, by disk key generation.
    pub const CHECK: u8 = 6;
}

/// `value` in postcard, in one buffer of the right size: one that grew would leave copies behind that nobody wipes.
pub(crate) fn encoded<T: serde::Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, postcard::Error> {
    let mut out = Zeroizing::new(vec![0_u8; postcard::experimental::serialized_size(value)?]);
    postcard::to_slice(value, &mut out)?;
    Ok(out)
}

/// 32 fresh random bytes.
pub(crate) fn random32() -> Result<[u8; 32], DiskError> {
    let mut r = [0; 32];
    getrandom::fill(&mut r).map_err(|_| DiskError::Entropy)?;
    Ok(r)
}
