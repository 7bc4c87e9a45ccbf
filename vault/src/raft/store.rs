//! The fjall database of a voter: four keyspaces with integer keys, every value a disk-layer record.
//!
//! Must never: hold a plaintext value or a key that tells anything, or open a store that another voter wrote.

use super::audit::AuditStore;
use super::codec;
use crate::disk::keys::{At, DiskKeys, SealError};
use crate::disk::keyspace;
use crate::failure::WHOLE;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use holdfast_types::SecretBytes;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Why the store cannot be used or went wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A value does not open: altered, moved, or of another generation.
    #[error("corrupt: value {index} of keyspace {keyspace} does not open; {whole}", whole = WHOLE)]
    Corrupt {
        /// Keyspace name.
        keyspace: &'static str,
        /// Integer key in it.
        index: u64,
    },
    /// The store's owner mark does not open with this voter's keys.
    #[error("this store was written by another voter or with another disk key")]
    NotOurs,
    /// The log does not reach back to what is applied: replaying it would skip entries.
    #[error("the log begins after entry {purged:?} but the snapshot ends at {applied:?}; {whole}", whole = WHOLE)]
    Gap {
        /// Index of the last purged entry.
        purged: Option<u64>,
        /// Index of the last entry in the snapshot.
        applied: Option<u64>,
    },
    /// Entries that were known to be committed are gone: the disk lost what it had confirmed, or an older copy was put back.
    #[error("the log ends at {last:?} but entry {committed:?} was committed; {whole}", whole = WHOLE)]
    CutOff {
        /// Index of the last entry.
        last: Option<u64>,
        /// Index of the last committed entry known.
        committed: Option<u64>,
    },
    /// An audit value differs from the one written before for the same index.
    #[error("audit value {index} differs from the one already written: this voter's state has diverged")]
    Diverged {
        /// Integer key in the audit keyspace.
        index: u64,
    },
    /// A number that does not fit the store's keys.
    #[error("index {0} is out of range")]
    Range(u64),
    /// A value could not be encoded.
    #[error("a value could not be encoded")]
    Encode,
    /// A value could not be sealed.
    #[error("cannot seal a value: {0}")]
    Seal(#[from] SealError),
    /// The storage engine failed.
    #[error("the storage engine failed: {0}")]
    Engine(#[from] fjall::Error),
    /// An earlier write failed; nothing more is written by this process.
    #[error("the store has stopped after a failed write: {0}")]
    Stopped(String),
}

impl From<StoreError> for std::io::Error {
    fn from(e: StoreError) -> Self {
        Self::other(e)
    }
}

/// Marks in keyspace `meta`. STORED: never reuse a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Says whose store this is.
    Owner = 0,
    /// The last vote.
    Vote = 1,
    /// The last committed log id known.
    Committed = 2,
    /// The last purged log id.
    Purged = 3,
    /// The current snapshot's header.
    Snapshot = 4,
    /// How far the log's leaves are whole.
    Filled = 6,
}

const OWNER: &[u8] = b"holdfast store";
/// Memory for blocks read back; state lives in memory, so little is.
const CACHE: u64 = 4 << 20;
/// Unflushed bytes a keyspace may hold in memory.
const MEMTABLE: u64 = 4 << 20;
/// Journal bytes on disk before old ones are made to go: the least that fjall takes.
const JOURNAL: u64 = 64 << 20;

/// A voter's open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) keys: Arc<DiskKeys>,
    pub(super) db: Database,
    pub(super) log: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) snap: Keyspace,
    pub(super) audit: Keyspace,
    /// Held while a snapshot is written: one may be built while another is installed.
    pub(super) saving: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("voter", &self.keys.voter()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in directory `dir`, or makes it. Refuses another voter's store and a log with a gap before it.
    pub fn open(dir: &Path, keys: Arc<DiskKeys>) -> Result<Self, StoreError> {
        let db = Database::builder(dir)
            .cache_size(CACHE)
            .max_journaling_size(JOURNAL)
            .manual_journal_persist(true)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE).manual_journal_persist(true);
        let open = |name| db.keyspace(name, options);
        let (log, meta, snap, audit) = (open("log")?, open("meta")?, open("snap")?, open("audit")?);
        let store = Self { keys, db, log, meta, snap, audit, saving: Arc::default() };
        store.check_owner()?;
        store.check_gap()?;
        store.drop_orphan_chunks()?;
        Ok(store)
    }

    fn check_owner(&self) -> Result<(), StoreError> {
        match self.mark_bytes(Mark::Owner) {
            Ok(Some(_)) => Ok(()),
            Ok(None) if self.meta.is_empty()? => {
                self.write(Flush::Sync, |b| self.put_mark_bytes(b, Mark::Owner, OWNER))
            }
            Ok(None) | Err(StoreError::Corrupt { .. }) => Err(StoreError::NotOurs),
            Err(e) => Err(e),
        }
    }

    fn check_gap(&self) -> Result<(), StoreError> {
        let purged = self.mark::<super::LogId>(Mark::Purged)?.map(|l| l.index);
        let applied = self.snapshot_header()?.and_then(|h| h.last_applied()).map(|l| l.index);
        if applied < purged { Err(StoreError::Gap { purged, applied }) } else { Ok(()) }
    }

    /// The audit keyspace.
    pub fn audit(&self) -> AuditStore {
        AuditStore::new(self.clone())
    }

    /// Writes one atomic batch.
    pub(super) fn write(
        &self,
        flush: Flush,
        fill: impl FnOnce(&mut OwnedWriteBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut b = self.db.batch().durability(Some(flush.mode()));
        fill(&mut b)?;
        Ok(b.commit()?)
    }

    /// Opens the sealed value `value` of `at`.
    pub(super) fn unseal(&self, at: At, name: &'static str, value: &[u8]) -> Result<SecretBytes, StoreError> {
        self.keys.open(at, value).map_err(|_| StoreError::Corrupt { keyspace: name, index: at.index })
    }

    fn mark_bytes(&self, mark: Mark) -> Result<Option<SecretBytes>, StoreError> {
        let index = mark as u64;
        let value = self.meta.get(index.to_be_bytes())?;
        value.map(|v| self.unseal(At::new(keyspace::META, index), "meta", &v)).transpose()
    }

    /// Reads a mark.
    pub(super) fn mark<T: DeserializeOwned>(&self, mark: Mark) -> Result<Option<T>, StoreError> {
        let corrupt = StoreError::Corrupt { keyspace: "meta", index: mark as u64 };
        match self.mark_bytes(mark)? {
            None => Ok(None),
            Some(b) => codec::decode(b.expose()).map(Some).ok_or(corrupt),
        }
    }

    fn put_mark_bytes(&self, b: &mut OwnedWriteBatch, mark: Mark, plain: &[u8]) -> Result<(), StoreError> {
        let index = mark as u64;
        b.insert(&self.meta, index.to_be_bytes(), self.keys.seal(At::new(keyspace::META, index), plain)?);
        Ok(())
    }

    /// Adds a mark to a batch.
    pub(super) fn put_mark<T: Serialize>(
        &self,
        b: &mut OwnedWriteBatch,
        mark: Mark,
        value: &T,
    ) -> Result<(), StoreError> {
        self.put_mark_bytes(b, mark, &codec::encode(value)?)
    }
}

/// How far a batch must have got when the write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Handed to the kernel: outlives the process, not the machine. For what can be made again from the log.
    Kernel,
    /// On the disk.
    Sync,
}

impl Flush {
    fn mode(self) -> PersistMode {
        match self {
            Self::Kernel => PersistMode::Buffer,
            Self::Sync => PersistMode::SyncData,
        }
    }
}
