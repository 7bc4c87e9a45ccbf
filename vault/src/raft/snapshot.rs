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
use std::io::{self, Write};
use std::sync::PoisonError;

/// Bytes of a chunk that is written. Whoever writes to the log meanwhile waits for one at most. A record holds four times as many.
const CHUNK: usize = 1 << 20;
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
        key_of(self.number, chunk)
    }
}

fn key_of(number: u32, chunk: u32) -> u64 {
    u64::from(number) << NUMBER_SHIFT | u64::from(chunk)
}

/// Writes a state down chunk by chunk while it is being encoded: it is nowhere in memory as one piece.
pub(super) struct Chunks<'a> {
    store: &'a Store,
    number: u32,
    chunks: u32,
    bytes: u64,
    /// What is not written yet: less than a chunk.
    rest: Vec<u8>,
    failed: Option<StoreError>,
}

impl<'a> Chunks<'a> {
    fn new(store: &'a Store, number: u32) -> Self {
        Self { store, number, chunks: 0, bytes: 0, rest: Vec::with_capacity(CHUNK), failed: None }
    }

    fn put(&mut self) -> Result<(), StoreError> {
        let (store, key) = (self.store, key_of(self.number, self.chunks));
        store.write(Flush::Kernel, |b| {
            b.insert(&store.snap, key.to_be_bytes(), store.keys.seal(At::new(keyspace::SNAP, key), &self.rest)?);
            Ok(())
        })?;
        self.bytes += self.rest.len() as u64;
        self.chunks = self.chunks.checked_add(1).ok_or(StoreError::Range(self.bytes))?;
        self.rest.clear();
        Ok(())
    }

    /// The header of what was written, if all of it was.
    fn finish(mut self, encoded: io::Result<()>, meta: &SnapshotMeta) -> Result<Header, StoreError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        encoded.map_err(|_| StoreError::Encode)?;
        if !self.rest.is_empty() {
            self.put()?;
        }
        Ok(Header { number: self.number, chunks: self.chunks, bytes: self.bytes, meta: meta.clone() })
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK.saturating_sub(self.rest.len()));
        self.rest.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.rest.len() >= CHUNK
            && let Err(e) = self.put()
        {
            let told = io::Error::other(e.to_string());
            self.failed = Some(e);
            return Err(told);
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A state on its way through raft: what another voter sent, or the current snapshot of a store, which is read where somebody
/// wants it. A start asks for it twice, and once only for how far it reaches.
#[derive(Debug)]
pub struct Carried(Whence);

#[derive(Debug)]
enum Whence {
    Sent(Vec<u8>),
    Store(Store),
}

impl Carried {
    /// From another voter.
    pub(super) fn sent(state: Vec<u8>) -> Self {
        Self(Whence::Sent(state))
    }

    /// The current snapshot of `store`.
    pub(super) fn lying_in(store: Store) -> Self {
        Self(Whence::Store(store))
    }

    /// The state; blocks for as long as reading it takes. Beside it how far it reaches, if it is the store's: another snapshot may
    /// be the current one by now.
    pub(super) fn read(self) -> Result<(Option<SnapshotMeta>, Vec<u8>), StoreError> {
        match self.0 {
            Whence::Sent(state) => Ok((None, state)),
            Whence::Store(store) => {
                let current = store.load_snapshot()?.map(|(meta, state)| (Some(meta), state));
                current.ok_or(StoreError::Missing { what: "the snapshot" })
            }
        }
    }
}

impl Store {
    /// The current snapshot's header.
    pub(super) fn snapshot_header(&self) -> Result<Option<Header>, StoreError> {
        self.mark(Mark::Snapshot)
    }

    /// Makes `data` the current snapshot, unless the current one reaches as far; on disk when this returns. Blocks for as long as sealing and flushing take.
    pub(super) fn save_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), StoreError> {
        self.save_encoded(meta, |out| out.write_all(data)).map(drop)
    }

    /// The same with what `encode` writes. Returns how many bytes the current snapshot has.
    pub(super) fn save_encoded(
        &self,
        meta: &SnapshotMeta,
        encode: impl FnOnce(&mut Chunks<'_>) -> io::Result<()>,
    ) -> Result<u64, StoreError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot_header()?;
        if let Some(as_far) = current.as_ref().filter(|h| h.last_applied() >= meta.last_log_id) {
            return Ok(as_far.bytes);
        }
        self.put_snapshot(current.as_ref(), meta, encode)
    }

    fn put_snapshot(
        &self,
        current: Option<&Header>,
        meta: &SnapshotMeta,
        encode: impl FnOnce(&mut Chunks<'_>) -> io::Result<()>,
    ) -> Result<u64, StoreError> {
        let mut chunks = Chunks::new(self, current.map_or(0, |h| h.number.wrapping_add(1)));
        let encoded = encode(&mut chunks);
        let header = chunks.finish(encoded, meta)?;
        self.write(Flush::Sync, |b| self.put_mark(b, Mark::Snapshot, &header))?;
        current.map_or(Ok(()), |before| self.drop_chunks(before))?;
        Ok(header.bytes)
    }

    /// Removes the chunks of a snapshot that is not the current one any more.
    fn drop_chunks(&self, of: &Header) -> Result<(), StoreError> {
        self.write(Flush::Kernel, |b| {
            (0..of.chunks).for_each(|n| b.remove(&self.snap, of.key(n).to_be_bytes()));
            Ok(())
        })
    }

    /// Writes the current snapshot anew if an older disk key sealed any of it.
    pub(super) fn reseal_snapshot(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_any_old(&self.snap)? {
            return Ok(());
        }
        let current = self.snapshot_header()?;
        if let Some((meta, data)) = self.read_snapshot(current.as_ref())? {
            self.put_snapshot(current.as_ref(), &meta, |out| out.write_all(&data))?;
        }
        // Whatever lies beside it is of an older key as well.
        self.drop_orphan_chunks()
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

    /// Removes chunks of snapshots that are not the current one: older ones, and what a crash left half written. The current one
    /// is passed over: for its keys the engine would read all of it.
    pub(super) fn drop_orphan_chunks(&self) -> Result<(), StoreError> {
        let [before, after] = match self.snapshot_header()? {
            Some(h) => [self.snap.range(..h.key(0).to_be_bytes()), self.snap.range(h.key(h.chunks).to_be_bytes()..)],
            None => [self.snap.range(..0_u64.to_be_bytes()), self.snap.iter()],
        };
        let orphans = before.chain(after).map(fjall::Guard::key).collect::<Result<Vec<_>, _>>()?;
        self.write(Flush::Kernel, |b| {
            orphans.into_iter().for_each(|k| b.remove(&self.snap, k));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::StoredMembership;
    use crate::raft::codec::log_id;
    use crate::raft::testing::store;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(log_id(1, index)), last_membership: StoredMembership::default() }
    }

    fn state(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[test]
    fn a_state_that_is_written_piece_by_piece_comes_back_whole_and_the_one_before_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for (len, index) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7].into_iter().zip(1..) {
            let state = state(len);
            // No piece ends where a chunk does.
            let saved =
                store.save_encoded(&meta(index), |out| state.chunks(1001).try_for_each(|piece| out.write_all(piece)));
            assert_eq!(saved.unwrap(), len as u64);
            let (far, read) = Carried::lying_in(store.clone()).read().unwrap();
            assert!(far == Some(meta(index)) && read == state, "{len} bytes");
            assert_eq!(store.snap.iter().count(), len.div_ceil(CHUNK), "{len} bytes");
        }
        // What a crash left of one before, or after.
        for left in [key_of(4, 0), key_of(5, 3 * 4), key_of(6, 0)] {
            store.snap.insert(left.to_be_bytes(), b"left".to_vec()).unwrap();
        }
        store.drop_orphan_chunks().unwrap();
        let (_, read) = Carried::lying_in(store.clone()).read().unwrap();
        assert!(store.snap.iter().count() == 4 && read == state(3 * CHUNK + 7));
        // One that reaches no further is not written.
        assert_eq!(store.save_encoded(&meta(2), |_| unreachable!()).unwrap(), 3 * CHUNK as u64 + 7);
    }

    #[test]
    fn a_state_that_cannot_be_encoded_to_its_end_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.save_snapshot(&meta(1), b"before").unwrap();
        let broken = store.save_encoded(&meta(2), |out| {
            out.write_all(&state(2 * CHUNK))?;
            Err(io::Error::other("no more"))
        });
        assert!(matches!(broken, Err(StoreError::Encode)));
        assert_eq!(store.load_snapshot().unwrap(), Some((meta(1), b"before".to_vec())));
    }
}
