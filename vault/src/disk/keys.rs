//! The disk keys of a running voter: seal and open every value that goes to its disk.
//!
//! Must never: hand a key out, or open a value at another place than the one it was sealed for.

use super::{DiskError, random32};
use holdfast_types::{ClusterId, Secret, SecretBytes, VoterId, kind};
use holdfast_wire::record::{self, Place, RecordError, RecordKey};

/// A voter's disk key, DK.
pub type DiskKey = Secret<kind::DiskKey, 32>;

/// A fresh disk key.
pub fn generate() -> Result<DiskKey, DiskError> {
    DiskKey::filled(|b| getrandom::fill(b).map_err(|_| DiskError::Entropy))
}

/// One generation of the disk key.
#[derive(Debug)]
pub struct Generation {
    /// Its number, counted from 1.
    pub number: u32,
    /// The key.
    pub key: DiskKey,
}

/// A place on this voter's disk.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// One of [`super::keyspace`].
    pub keyspace: u8,
    /// Integer key within it.
    pub index: u64,
    /// Raft term, 0 outside the log.
    pub raft_term: u64,
}

impl At {
    /// A place outside the log.
    pub const fn new(keyspace: u8, index: u64) -> Self {
        Self { keyspace, index, raft_term: 0 }
    }
}

/// All that seals and opens this voter's disk: the current disk key and, while it is being replaced, the next one.
#[derive(Debug)]
pub struct DiskKeys {
    cluster: ClusterId,
    voter: VoterId,
    current: Generation,
    pending: Option<Generation>,
    hedge: Secret<kind::HedgeKey, 32>,
}

impl DiskKeys {
    /// `pending` is the next generation while the disk key is being rotated; new values are then sealed with it.
    pub fn new(
        cluster: ClusterId,
        voter: VoterId,
        current: Generation,
        pending: Option<Generation>,
    ) -> Result<Self, DiskError> {
        let hedge = Secret::filled(|b| getrandom::fill(b).map_err(|_| DiskError::Entropy))?;
        Ok(Self { cluster, voter, current, pending, hedge })
    }

    /// The cluster these keys belong to.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The voter these keys belong to.
    pub fn voter(&self) -> VoterId {
        self.voter
    }

    fn place(&self, at: At) -> Place<'static> {
        Place::Disk { voter: self.voter.0, keyspace: at.keyspace, index: at.index, raft_term: at.raft_term }
    }

    /// Seals `plaintext` for the place `at`, with the newest generation.
    pub fn seal(&self, at: At, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let g = self.pending.as_ref().unwrap_or(&self.current);
        let random = random32().map_err(|_| SealError::Entropy)?;
        let key = RecordKey { key: g.key.expose(), term: g.number };
        Ok(record::seal(key, &self.cluster, &self.place(at), plaintext, random, &self.hedge)?)
    }

    /// Opens what was sealed for the place `at`, by either generation.
    pub fn open(&self, at: At, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let term = record::term_of(sealed)?;
        let g = self.pending.as_ref().filter(|p| p.number == term).unwrap_or(&self.current);
        let key = RecordKey { key: g.key.expose(), term: g.number };
        Ok(record::open(key, &self.cluster, &self.place(at), sealed)?)
    }
}

/// Why a value was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// See [`RecordError`].
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The system's entropy source failed.
    #[error("the system gives no random bytes")]
    Entropy,
}
