//! Snapshots on the disk: sealed chunks of at most 4 MiB, and one header that makes them count.
//!
//! Must never: let a half-written snapshot count. Chunks of a new one lie beside the old one's until the header is replaced and on disk.
//!
//! STORED: keyspace `snap`, key = snapshot number << 32 | chunk number; header in `meta`.

use super::store::{Flush, Mark, Store, StoreError};
use super::{LogId, SnapshotMeta};
use crate::disk::keys::At;
use crate::disk::keyspace;
use serde::{Deserialize, Serialize};
use std::sync::PoisonError;

/// Bytes of a chunk; its record's limit is the same.
const CHUNK: usize = 4 << 20;
const NUMBER_SHIFT: u32 = 32;

/// What the current snapshot is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    number: u32,
    chunks: u32,
    bytes: u64,
    pub(super) meta: SnapshotMeta,
}

impl Header {
    pub(super) fn last_applied(&self) -> Option<LogId> {
        self.meta.last_log_id
    }
    fn key(&self, chunk: u32) -> u64 {
        u64::from(self.number) << NUMBER_SHIFT | u64::from(chunk)
    }
}

impl Store {
    /// The current snapshot's header.
    pub(super) fn snapshot_header(&self) -> Result<Option<Header>, StoreError> {
        self.mark(Mark::Snapshot)
    }

    /// Makes `data` the current snapshot, unless the current one reaches as far; on disk when this returns. Blocks for as long as sealing and flushing take.
    pub(super) fn save_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), StoreError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot_header()?;
        if current.as_ref().is_some_and(|h| h.last_applied() >= meta.last_log_id) {
            return Ok(());
        }
        self.put_snapshot(current.as_ref(), meta, data)
    }

    fn put_snapshot(&self, current: Option<&Header>, meta: &SnapshotMeta, data: &[u8]) -> Result<(), StoreError> {
        let number = current.map_or(0, |h| h.number.wrapping_add(1));
        let chunks = u32::try_from(data.len().div_ceil(CHUNK)).map_err(|_| StoreError::Range(data.len() as u64))?;
        let header = Header { number, chunks, bytes: data.len() as u64, meta: meta.clone() };
        for (chunk, n) in data.chunks(CHUNK).zip(0..) {
            let key = header.key(n);
            self.write(Flush::Kernel, |b| {
                b.insert(&self.snap, key.to_be_bytes(), self.keys.seal(At::new(keyspace::SNAP, key), chunk)?);
                Ok(())
            })?;
        }
        self.write(Flush::Sync, |b| self.put_mark(b, Mark::Snapshot, &header))?;
        self.drop_orphan_chunks()
    }

    /// Writes the current snapshot anew if an older disk key sealed any of it.
    pub(super) fn reseal_snapshot(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_any_old(&self.snap)? {
            return Ok(());
        }
        let current = self.snapshot_header()?;
        match self.read_snapshot(current.as_ref())? {
            Some((meta, data)) => self.put_snapshot(current.as_ref(), &meta, &data),
            None => self.drop_orphan_chunks(),
        }
    }

    /// Reads the current snapshot back, whole.
    pub(super) fn load_snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let _not_replaced_meanwhile = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_snapshot(self.snapshot_header()?.as_ref())
    }

    fn read_snapshot(&self, header: Option<&Header>) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let Some(header) = header else { return Ok(None) };
        let mut data = Vec::with_capacity(usize::try_from(header.bytes).unwrap_or(0));
        for n in 0..header.chunks {
            let key = header.key(n);
            let value =
                self.snap.get(key.to_be_bytes())?.ok_or(StoreError::Corrupt { keyspace: "snap", index: key })?;
            data.extend_from_slice(self.unseal(At::new(keyspace::SNAP, key), "snap", &value)?.expose());
        }
        if data.len() as u64 != header.bytes {
            return Err(StoreError::Corrupt { keyspace: "snap", index: header.key(header.chunks) });
        }
        Ok(Some((header.meta.clone(), data)))
    }

    /// Removes chunks of snapshots that are not the current one: older ones, and what a crash left half written.
    pub(super) fn drop_orphan_chunks(&self) -> Result<(), StoreError> {
        let current = self.snapshot_header()?.map(|h| h.number.to_be_bytes());
        let mut orphans = Vec::new();
        for item in self.snap.iter() {
            let key = item.key()?;
            if current.is_none_or(|c| !key.starts_with(&c)) {
                orphans.push(key);
            }
        }
        self.write(Flush::Kernel, |b| {
            orphans.into_iter().for_each(|k| b.remove(&self.snap, k));
            Ok(())
        })
    }
}
