//! Memory that the storage engine holds of what was written: given back while nothing is.
//!
//! Each keyspace collects what is written in memory until that is large enough for a file. And what went into a file stays in
//! memory until the next time that any keyspace begins another collection: nobody may be reading it any more by then.

use super::store::{Flush, Mark, OWNER, Store, StoreError};

impl Store {
    /// What was written goes from memory into files, beside the running log: it has begun when this returns.
    pub(crate) fn flush_tables(&self) -> Result<(), StoreError> {
        for keyspace in [&self.log, &self.snap, &self.audit, &self.meta] {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// What is in files is held in memory no longer.
    pub(crate) fn forget_flushed(&self) -> Result<(), StoreError> {
        // Only a keyspace that holds something begins another collection: it gets what it has, once more.
        self.write(Flush::Kernel, |b| self.put_mark_bytes(b, Mark::Owner, OWNER))?;
        self.meta.rotate_memtable()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::raft::testing::{DEADLINE, keys, store, values};
    use fjall::AbstractTree as _;
    use std::time::Instant;

    #[test]
    fn what_is_in_files_is_held_in_memory_no_longer_and_is_still_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let leaves: Vec<_> = (0..500u64).map(|i| (i, vec![u8::try_from(i % 251).unwrap(); 2000])).collect();
        store.audit().append(&leaves, &[(0, 4, [4; 32])]).unwrap();
        let held = || store.audit.tree.version_memtable_size_sum();
        let (before, all) = (held(), values(&store, &keys(1, 9)).unwrap());
        assert!(before > 1_000_000, "{before}");
        store.flush_tables().unwrap();
        let begun = Instant::now();
        while store.audit.sealed_memtable_count() + store.meta.sealed_memtable_count() > 0 {
            assert!(begun.elapsed() < DEADLINE, "not in files yet");
            std::thread::yield_now();
        }
        store.forget_flushed().unwrap();
        assert!(held() < 10_000, "{} of {before}", held());
        assert!(values(&store, &keys(1, 9)).unwrap() == all, "another value, or another set of them");
    }
}
