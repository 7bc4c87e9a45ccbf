//! The fjall database of a voter: four keyspaces with integer keys, every value a disk-layer record.
//!
//! Must never: hold a plaintext value or a key that tells anything, or open a store that another voter wrote.

use super::audit::AuditStore;
use super::codec;
use crate::disk::DiskError;
use crate::disk::boot::BootMark;
use crate::disk::keys::{At, DiskKeys, SealError};
use crate::disk::keyspace;
use crate::failure::WHOLE;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use holdfast_types::SecretBytes;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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
    /// The engine cannot make sense of its files.
    #[error("corrupt: the store's files are damaged; {whole}", whole = WHOLE)]
    Damaged,
    /// A part of the store that was there is not.
    #[error("{what} is not there: this is no whole store; {whole}", whole = WHOLE)]
    Missing {
        /// Which part.
        what: &'static str,
    },
    /// A store is where a new one was to be made.
    #[error("there is a store already")]
    Exists,
    /// The disk is an older copy of itself: it was at a later boot already.
    #[error("this disk was set back: it is at boot {store}, and was at boot {anchor} already; {whole}", whole = WHOLE)]
    SetBack {
        /// The boot that the anchor knows.
        anchor: u64,
        /// The boot that the store knows.
        store: u64,
    },
    /// The other voters found out, at an earlier start, that this disk must not be used any more.
    #[error("at an earlier start the other voters said that its disk was set back, or that it was evicted")]
    Out,
    /// The file beside the store that counts its boots is not there.
    #[error("the file `anchor` is not there, and this disk is at boot {store}; {whole}", whole = WHOLE)]
    NoAnchor {
        /// The boot that the store knows.
        store: u64,
    },
    /// A file beside the store cannot be used.
    #[error(transparent)]
    File(#[from] DiskError),
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

impl StoreError {
    /// Another opening has the store, or is just letting go of it.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Engine(fjall::Error::Locked))
    }
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
    /// The newest boot.
    Boot = 5,
    /// How far the log's leaves are whole.
    Filled = 6,
}

pub(super) const OWNER: &[u8] = b"holdfast store";
/// The file by which the storage engine knows its own folder; without it, it would make a new store there.
const ENGINE_MARKER: &str = "version";
/// The store's keyspaces. STORED.
const KEYSPACES: [&str; 4] = ["log", "meta", "snap", "audit"];
/// Memory for blocks read back; state lives in memory, so little is.
const CACHE: u64 = 4 << 20;
/// Unflushed bytes a keyspace may hold in memory.
const MEMTABLE: u64 = 4 << 20;
/// The same of the marks: all that it would hold is what they were before.
const MARKS: u64 = 256 << 10;
/// Threads of the engine. The first one only flushes, and hands what is to be compacted round in a circle until another takes it:
/// with one other, it would spin for as long as a compaction takes, which on two processors is one of them.
const WORKERS: usize = 3;
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
    /// Held for reading from sealing to committing: whoever has held it for writing knows that no older seal is on its way.
    committing: Arc<RwLock<()>>,
    /// Of the audit keyspace: what is about to be written.
    staged: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("voter", &self.keys.voter()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store that is in directory `dir`. Refuses one that is not whole, another voter's, and a log with a gap before it.
    pub fn open(dir: &Path, keys: Arc<DiskKeys>) -> Result<Self, StoreError> {
        if !dir.join(ENGINE_MARKER).is_file() {
            return Err(StoreError::Missing { what: "the store" });
        }
        if !has_all_trees(dir) {
            return Err(StoreError::Missing { what: "a keyspace" });
        }
        let db = database(dir)?;
        let there = db.list_keyspace_names();
        if let Some(what) = KEYSPACES.into_iter().find(|k| !there.iter().any(|t| &**t == *k)) {
            return Err(StoreError::Missing { what });
        }
        let store = Self::over(db, keys)?;
        store.check_owner()?;
        store.check_gap()?;
        store.drop_orphan_chunks()?;
        Ok(store)
    }

    /// Makes a store in directory `dir`, for a voter that is being founded or is joining.
    pub fn create(dir: &Path, keys: Arc<DiskKeys>) -> Result<Self, StoreError> {
        if dir.join(ENGINE_MARKER).exists() {
            return Err(StoreError::Exists);
        }
        let store = Self::over(database(dir)?, keys)?;
        store.write(Flush::Sync, |b| {
            store.put_mark_bytes(b, Mark::Owner, OWNER)?;
            store.put_audit_owner(b, OWNER)
        })?;
        Ok(store)
    }

    fn over(db: Database, keys: Arc<DiskKeys>) -> Result<Self, StoreError> {
        let options = |size| KeyspaceCreateOptions::default().max_memtable_size(size).manual_journal_persist(true);
        let open = |name, size| db.keyspace(name, || options(size));
        let [log, meta, snap, audit] = KEYSPACES;
        let (log, meta) = (open(log, MEMTABLE)?, open(meta, MARKS)?);
        let (snap, audit) = (open(snap, MEMTABLE)?, open(audit, MEMTABLE)?);
        let (saving, committing, staged) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { keys, db, log, meta, snap, audit, saving, committing, staged })
    }

    /// The mark says whose store this is; the one among the leaves says that they are the store's.
    fn check_owner(&self) -> Result<(), StoreError> {
        match self.mark_bytes(Mark::Owner) {
            Ok(Some(_)) if self.has_audit_owner()? => Ok(()),
            Ok(Some(_)) => Err(StoreError::Missing { what: "audit" }),
            Ok(None) if self.meta.is_empty()? => Err(StoreError::Missing { what: "meta" }),
            Ok(None) | Err(StoreError::Corrupt { .. }) => Err(StoreError::NotOurs),
            Err(e) => Err(e),
        }
    }

    fn check_gap(&self) -> Result<(), StoreError> {
        let purged = self.mark::<super::LogId>(Mark::Purged)?.map(|l| l.index);
        let applied = self.snapshot_header()?.and_then(|h| h.last_applied()).map(|l| l.index);
        if applied < purged {
            return Err(StoreError::Gap { purged, applied });
        }
        // Entries go from the start by purging alone, in one write with the mark.
        let expected = purged.map_or(0, |p| p.saturating_add(1));
        if self.first_entry(expected)?.is_some_and(|first| first > expected) {
            return Err(StoreError::Corrupt { keyspace: "log", index: expected });
        }
        Ok(())
    }

    pub(super) fn staged(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
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
        let _committing = self.committing.read().unwrap_or_else(PoisonError::into_inner);
        self.commit(flush, fill)
    }

    /// The same, with no other write between the reading that `fill` does and its write. Keep it short.
    pub(super) fn write_alone(
        &self,
        flush: Flush,
        fill: impl FnOnce(&mut OwnedWriteBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _alone = self.committing.write().unwrap_or_else(PoisonError::into_inner);
        self.commit(flush, fill)
    }

    fn commit(
        &self,
        flush: Flush,
        fill: impl FnOnce(&mut OwnedWriteBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut b = self.db.batch().durability(Some(flush.mode()));
        fill(&mut b)?;
        Ok(b.commit()?)
    }

    /// Returns once everything that was sealed before the call is committed, or given up.
    pub(crate) fn fence(&self) {
        drop(self.committing.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was written so far is on the disk when this returns.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    /// Whose keys open it.
    pub(crate) fn keys(&self) -> &DiskKeys {
        &self.keys
    }

    /// Index of the last entry of the log, purged or not; 0 where there is none.
    pub fn last_log_index(&self) -> Result<u64, StoreError> {
        match self.log.last_key_value() {
            Some(entry) => super::log::index_of(&entry.key()?),
            None => Ok(self.mark::<super::LogId>(Mark::Purged)?.map_or(0, |l| l.index)),
        }
    }

    /// Raft term of the last vote; 0 where there is none.
    pub fn vote_term(&self) -> Result<u64, StoreError> {
        Ok(self.mark::<super::Vote>(Mark::Vote)?.map_or(0, |v| v.leader_id.term))
    }

    /// The newest boot.
    pub(crate) fn boot(&self) -> Result<Option<BootMark>, StoreError> {
        self.mark(Mark::Boot)
    }

    /// Writes the newest boot; on disk when this returns.
    pub(crate) fn put_boot(&self, boot: &BootMark) -> Result<(), StoreError> {
        self.write(Flush::Sync, |b| self.put_mark(b, Mark::Boot, boot))
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

    pub(super) fn put_mark_bytes(&self, b: &mut OwnedWriteBatch, mark: Mark, plain: &[u8]) -> Result<(), StoreError> {
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

/// Whether the engine finds what it needs of its own catalogue and of every keyspace: it would make anew what is gone, and remove
/// what belonged to it.
fn has_all_trees(dir: &Path) -> bool {
    let trees = dir.join("keyspaces");
    let whole = |tree: &Path| tree.join("current").is_file();
    let Ok(found) = std::fs::read_dir(&trees) else { return false };
    let count = found.filter_map(Result::ok).filter(|tree| whole(&tree.path())).count();
    whole(&trees.join("0")) && count > KEYSPACES.len()
}

fn database(dir: &Path) -> Result<Database, StoreError> {
    let builder = Database::builder(dir).cache_size(CACHE).max_journaling_size(JOURNAL).manual_journal_persist(true);
    let builder = builder.worker_threads(WORKERS);
    // The engine asserts some of what it reads.
    let open = std::panic::AssertUnwindSafe(|| builder.open());
    std::panic::catch_unwind(open).map_err(|_| StoreError::Damaged)?.map_err(StoreError::from)
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
