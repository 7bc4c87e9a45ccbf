//! The disk keys of a running voter: seal and open every value that goes to its disk.
//!
//! Must never: hand a key out but to the slots file, or open a value at another place than the one it was sealed for.

use super::{DiskError, random32};
use arc_swap::ArcSwap;
use holdfast_types::{ClusterId, Secret, SecretBytes, VoterId, kind};
use holdfast_wire::record::{self, Place, RecordError, RecordKey};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

impl Generation {
    fn duplicate(&self) -> Self {
        Self { number: self.number, key: self.key.duplicate() }
    }
}

/// The generations that open values now.
#[derive(Debug)]
struct Live {
    current: Generation,
    pending: Option<Generation>,
}

impl Live {
    fn newest(&self) -> &Generation {
        self.pending.as_ref().unwrap_or(&self.current)
    }
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
    live: ArcSwap<Live>,
    hedge: Secret<kind::HedgeKey, 32>,
    /// Held while the slots file is changed: a rotation and a change of recipients never overwrite each other.
    changing: Mutex<()>,
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
        let live = ArcSwap::from_pointee(Live { current, pending });
        Ok(Self { cluster, voter, live, hedge, changing: Mutex::default() })
    }

    /// From now on new values are sealed with `next`; the key in use still opens what it sealed. `next` must be in the slots
    /// file, on disk, before this is called.
    pub fn begin(&self, next: Generation) {
        let current = self.live.load().current.duplicate();
        self.live.store(Arc::new(Live { current, pending: Some(next) }));
    }

    /// The pending key is the only one from now on; the one before is wiped.
    pub fn finish(&self) {
        let live = self.live.load_full();
        if let Some(next) = &live.pending {
            self.live.store(Arc::new(Live { current: next.duplicate(), pending: None }));
        }
    }

    /// Number of the generation that new values are sealed with.
    pub fn newest(&self) -> u32 {
        self.live.load().newest().number
    }

    /// Whether the disk key is being replaced.
    pub fn is_replacing(&self) -> bool {
        self.live.load().pending.is_some()
    }

    /// Every live key with its number, for the slots file alone.
    pub(super) fn for_slots(&self) -> Vec<Generation> {
        let live = self.live.load();
        std::iter::once(&live.current).chain(&live.pending).map(Generation::duplicate).collect()
    }

    /// The one right to change the slots file.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.seal_with(at, plaintext, random32().map_err(|_| SealError::Entropy)?)
    }

    /// The same with `random`, one of [`DiskKeys::fresh`] that is used for nothing else.
    pub fn seal_with(&self, at: At, plaintext: &[u8], random: [u8; 32]) -> Result<Vec<u8>, SealError> {
        let live = self.live.load();
        let g = live.newest();
        let key = RecordKey { key: g.key.expose(), term: g.number };
        Ok(record::seal(key, &self.cluster, &self.place(at), plaintext, random, &self.hedge)?)
    }

    /// Fresh random bytes for as many values as are sealed together: the system is asked once.
    pub fn fresh(values: usize) -> Result<Vec<[u8; 32]>, SealError> {
        let mut all = vec![[0; 32]; values];
        getrandom::fill(all.as_flattened_mut()).map_err(|_| SealError::Entropy)?;
        Ok(all)
    }

    /// Whether `sealed` is of an older generation than new values are.
    pub fn is_old(&self, sealed: &[u8]) -> Result<bool, SealError> {
        Ok(record::term_of(sealed)? != self.newest())
    }

    /// Opens what was sealed for the place `at`, by either generation.
    pub fn open(&self, at: At, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let term = record::term_of(sealed)?;
        let live = self.live.load();
        let g = live.pending.as_ref().filter(|p| p.number == term).unwrap_or(&live.current);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_value_that_is_sealed_along_with_others_has_random_bytes_of_its_own() {
        let drawn = DiskKeys::fresh(100).unwrap();
        let different: BTreeSet<_> = drawn.iter().chain(&[[0; 32]]).collect();
        assert_eq!((drawn.len(), different.len()), (100, 101));
        assert_eq!(DiskKeys::fresh(0).unwrap(), Vec::<[u8; 32]>::new());
    }
}
