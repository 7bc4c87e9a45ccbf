//! Replacing the disk key within the store: what an older key sealed is sealed again, a little at a time, beside the running log.
//!
//! Must never: change what a value says, or hold up the log writer while anything is sealed.
//! The log is not sealed again: its entries hold boxes of keys that may have been destroyed since. It is purged behind a snapshot.

use super::store::{Flush, Store, StoreError};
use crate::disk::keys::At;
use crate::disk::keyspace;
use fjall::{Keyspace, Slice};

/// Audit values that are sealed again in one write.
const BATCH: usize = 256;

impl Store {
    /// Seals again with the newest disk key: marks, audit values and the snapshot. `progress` hears how many audit values were
    /// looked at, and how many there are; its error stops the work between two writes, and a later call goes on.
    pub fn reseal(&self, mut progress: impl FnMut(u64, u64) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.fence();
        self.reseal_marks()?;
        progress(0, 0)?;
        self.reseal_audit(&mut progress)?;
        self.reseal_snapshot()
    }

    /// Seals the marks again with the newest disk key, all in one write. No other write comes between reading and writing.
    fn reseal_marks(&self) -> Result<(), StoreError> {
        self.write_alone(Flush::Sync, |b| {
            for item in self.meta.iter() {
                let (key, value) = item.into_inner()?;
                let at = At::new(keyspace::META, super::log::index_of(&key)?);
                b.insert(&self.meta, key, self.keys.seal(at, self.unseal(at, "meta", &value)?.expose())?);
            }
            Ok(())
        })
    }

    fn reseal_audit(&self, progress: &mut impl FnMut(u64, u64) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let all = self.audit.approximate_len() as u64;
        let (mut seen, mut old) = (0, Vec::with_capacity(BATCH));
        // The iterator sees the keyspace as it was when it was made. What is written meanwhile is sealed with the newest key.
        for item in self.audit.iter() {
            let (key, value) = item.into_inner()?;
            seen += 1;
            if self.is_old("audit", &key, &value)? {
                old.push((key, value));
            }
            if old.len() >= BATCH {
                self.reseal_batch(&old)?;
                old.clear();
                progress(seen, all)?;
            }
        }
        self.reseal_batch(&old)?;
        progress(seen, all)
    }

    fn reseal_batch(&self, old: &[(Slice, Slice)]) -> Result<(), StoreError> {
        let again = old.iter().map(|(key, value)| {
            let at = At::new(keyspace::AUDIT, key_of("audit", key)?);
            Ok::<_, StoreError>(self.keys.seal(at, self.unseal(at, "audit", value)?.expose())?)
        });
        let again = again.collect::<Result<Vec<_>, StoreError>>()?;
        self.write_alone(Flush::Kernel, |b| {
            for ((key, value), again) in old.iter().zip(again) {
                // What was written meanwhile, by a voter that fills its gaps, is newer and sealed with the newest key.
                if self.audit.get(key)?.is_some_and(|now| now == *value) {
                    b.insert(&self.audit, key.clone(), again);
                }
            }
            Ok(())
        })
    }

    fn is_old(&self, keyspace: &'static str, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        let index = key_of(keyspace, key)?;
        self.keys.is_old(value).map_err(|_| StoreError::Corrupt { keyspace, index })
    }

    /// Whether an older disk key sealed any value of `snap`, `meta` or `audit`.
    pub(super) fn is_any_old(&self, of: &Keyspace) -> Result<bool, StoreError> {
        for item in of.iter() {
            let (key, value) = item.into_inner()?;
            if self.is_old("store", &key, &value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an older disk key sealed any entry of the log.
    pub(crate) fn is_log_old(&self) -> Result<bool, StoreError> {
        for item in self.log.iter() {
            let (key, value) = item.into_inner()?;
            let index = key_of("log", &key)?;
            let (_, sealed) = super::codec::term_of(index, &value)?;
            if self.is_old("log", &key, sealed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an older disk key sealed any value of the store.
    pub(crate) fn is_old_anywhere(&self) -> Result<bool, StoreError> {
        for keyspace in [&self.meta, &self.audit, &self.snap] {
            if self.is_any_old(keyspace)? {
                return Ok(true);
            }
        }
        self.is_log_old()
    }

    /// Whether the log still holds the entry `index` or one before it.
    pub(crate) fn log_reaches_back_to(&self, index: u64) -> Result<bool, StoreError> {
        let Some(first) = self.log.first_key_value() else { return Ok(false) };
        Ok(key_of("log", &first.key()?)? <= index)
    }
}

fn key_of(keyspace: &'static str, key: &[u8]) -> Result<u64, StoreError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Corrupt { keyspace, index: 0 })
}
