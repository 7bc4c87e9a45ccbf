//! Memory that the storage engine holds of what was written: given back while nothing is.
//!
//! Each keyspace collects what is written in memory until that is large enough for a file. And what went into a file stays in
//! memory until the next time that any keyspace begins another collection: nobody may be reading it any more by then.

use super::store::{Flush, Mark, OWNER, Store, StoreError};
use fjall::{AbstractTree as _, Keyspace};

/// Bytes in memory that are worth files of their own.
const WORTH: u64 = 1 << 20;

impl Store {
    fn keyspaces(&self) -> [&Keyspace; 4] {
        [&self.log, &self.snap, &self.audit, &self.meta]
    }

    /// Bytes that the engine holds in memory of what was written, in files already or not.
    fn held(&self) -> u64 {
        self.keyspaces().into_iter().map(|keyspace| keyspace.tree.version_memtable_size_sum()).sum()
    }

    /// What was written goes from memory into files if it is much, beside the running log: it has begun when this returns.
    pub(crate) fn flush_tables(&self) -> Result<(), StoreError> {
        if self.held() < WORTH {
            return Ok(());
        }
        for keyspace in self.keyspaces() {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// What is in files is held in memory no longer, if it is much.
    pub(crate) fn forget_flushed(&self) -> Result<(), StoreError> {
        if self.held() < WORTH {
            return Ok(());
        }
        // Only a keyspace that holds something begins another collection: it gets what it has, once more.
        self.write(Flush::Kernel, |b| self.put_mark_bytes(b, Mark::Owner, OWNER))?;
        self.meta.rotate_memtable()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::WORTH;
    use crate::raft::testing::{DEADLINE, keys, store, values};
    use std::time::Instant;

    #[test]
    fn what_is_in_files_is_held_in_memory_no_longer_and_is_still_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let leaves: Vec<_> = (0..1000u64).map(|i| (i, vec![u8::try_from(i % 251).unwrap(); 2000])).collect();
        store.audit().append(&leaves, &[(0, 4, [4; 32])]).unwrap();
        let (before, all) = (store.held(), values(&store, &keys(1, 9)).unwrap());
        assert!(before > WORTH, "{before}");
        store.flush_tables().unwrap();
        let begun = Instant::now();
        while store.audit.sealed_memtable_count() + store.meta.sealed_memtable_count() > 0 {
            assert!(begun.elapsed() < DEADLINE, "not in files yet");
            std::thread::yield_now();
        }
        store.forget_flushed().unwrap();
        assert!(store.held() < 10_000, "{} of {before}", store.held());
        assert!(values(&store, &keys(1, 9)).unwrap() == all, "another value, or another set of them");
    }

    #[test]
    fn for_a_little_no_file_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.audit().append(&[(0, b"leaf".to_vec())], &[]).unwrap();
        let before = store.held();
        store.flush_tables().unwrap();
        store.forget_flushed().unwrap();
        assert_eq!(store.held(), before);
        assert_eq!(store.audit.table_count() + store.meta.table_count(), 0);
    }
}
