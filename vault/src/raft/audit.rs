//! The audit keyspace: log leaves and Merkle nodes, written behind the entries that are applied.
//!
//! Must never: change a value once written. Replay after a crash writes the same values again, and anything else is refused.
//!
//! Nothing here is flushed on its own: until a snapshot covers an entry it is in the raft log, and applying it writes the same leaves.
//! A snapshot is begun once the leaves of its entries are written, and one journal serves all keyspaces in order: its flush flushes
//! every leaf before it.

use super::store::{Flush, Store, StoreError};
use crate::disk::keys::{At, DiskKeys};
use crate::disk::keyspace;
use fjall::OwnedWriteBatch;
use holdfast_types::SecretBytes;
use holdfast_wire::merkle::leaf_hash;
use std::sync::Arc;

/// A Merkle node: `(level, index in the level, hash)`; level 0 are the leaf hashes, which follow from the leaves where those are.
pub type Node = (u8, u64, [u8; 32]);

/// Where the store's owner mark lies among the leaves: behind every node. With it, an emptied keyspace is not taken for a new one.
const OWNER_KEY: u64 = u64::MAX;

/// Leaves lie at their index; nodes above them, the level in the top byte.
const LEVEL_SHIFT: u32 = 56;

/// Reads and writes audit leaves and Merkle nodes. Clones share the store.
#[derive(Debug, Clone)]
pub struct AuditStore {
    pub(super) store: Store,
    /// First key of the leaves that was free when this process started: below it a write may be a replay.
    replay_below: Arc<u64>,
}

fn leaf_key(index: u64) -> Result<u64, StoreError> {
    if index >> LEVEL_SHIFT == 0 { Ok(index) } else { Err(StoreError::Range(index)) }
}

fn node_key(level: u8, index: u64) -> Result<u64, StoreError> {
    let level = level.checked_add(1).ok_or(StoreError::Range(u64::from(level)))?;
    Ok(u64::from(level) << LEVEL_SHIFT | leaf_key(index)?)
}

impl Store {
    pub(super) fn put_audit_owner(&self, b: &mut OwnedWriteBatch, plain: &[u8]) -> Result<(), StoreError> {
        b.insert(&self.audit, OWNER_KEY.to_be_bytes(), self.keys.seal(At::new(keyspace::AUDIT, OWNER_KEY), plain)?);
        Ok(())
    }

    pub(super) fn has_audit_owner(&self) -> Result<bool, StoreError> {
        let value = self.audit.get(OWNER_KEY.to_be_bytes())?;
        value.map(|v| self.unseal(At::new(keyspace::AUDIT, OWNER_KEY), "audit", &v)).transpose().map(|v| v.is_some())
    }
}

impl AuditStore {
    pub(super) fn new(store: Store) -> Self {
        let last = store.audit.range(..(1u64 << LEVEL_SHIFT).to_be_bytes()).next_back().and_then(|g| g.key().ok());
        let last = last.and_then(|k| <[u8; 8]>::try_from(&*k).ok()).map(u64::from_be_bytes);
        Self { store, replay_below: Arc::new(last.map_or(0, |l| l.saturating_add(1))) }
    }

    /// Adds leaves (index, salt ‖ entry) and nodes in one atomic write. The same values may be given again: a start applies the
    /// log since the last snapshot once more, and what is there is not sealed and written a second time.
    pub fn append(&self, leaves: &[(u64, Vec<u8>)], nodes: &[Node]) -> Result<(), StoreError> {
        if self.is_there(leaves, nodes)? { Ok(()) } else { self.put(leaves, nodes) }
    }

    /// The same in two steps: from here on they are read as if they were written, by all who share the store; `None` if they
    /// are. So whoever holds others up while adding them does not wait for the disk.
    pub fn stage(&self, leaves: Vec<(u64, Vec<u8>)>, nodes: Vec<Node>) -> Result<Option<Staged>, StoreError> {
        if self.is_there(&leaves, &nodes)? {
            return Ok(None);
        }
        let mut staged = self.store.staged();
        for (i, leaf) in &leaves {
            staged.insert(leaf_key(*i)?, leaf.clone());
        }
        for (level, i, hash) in &nodes {
            staged.insert(node_key(*level, *i)?, hash.to_vec());
        }
        drop(staged);
        Ok(Some(Staged { audit: self.clone(), leaves, nodes }))
    }

    /// Whether all of them were written before. Another leaf in the place of one is an error.
    fn is_there(&self, leaves: &[(u64, Vec<u8>)], nodes: &[Node]) -> Result<bool, StoreError> {
        let mut there = true;
        for (i, leaf) in leaves {
            let old = if *i < *self.replay_below { self.leaf(*i)? } else { None };
            if old.as_ref().is_some_and(|old| old.expose() != leaf) {
                return Err(StoreError::Diverged { index: *i });
            }
            there &= old.is_some();
        }
        // A node that is missing or does not open is written again.
        let same = |(level, i, hash): &Node| self.node(*level, *i).is_ok_and(|found| found.as_ref() == Some(hash));
        Ok(there && nodes.iter().all(same))
    }

    /// Writes them without asking what is there.
    pub(super) fn put(&self, leaves: &[(u64, Vec<u8>)], nodes: &[Node]) -> Result<(), StoreError> {
        let leaves = leaves.iter().map(|(i, v)| Ok::<_, StoreError>((leaf_key(*i)?, v.as_slice())));
        let nodes = nodes.iter().map(|(l, i, h)| Ok((node_key(*l, *i)?, h.as_slice())));
        let all = leaves.chain(nodes).collect::<Result<Vec<_>, StoreError>>()?;
        self.store.write(Flush::Kernel, |b| self.seal_into(b, &all))
    }

    /// Seals values by their keys into a batch.
    pub(super) fn seal_into(&self, b: &mut OwnedWriteBatch, values: &[(u64, &[u8])]) -> Result<(), StoreError> {
        for ((key, plain), random) in values.iter().zip(DiskKeys::fresh(values.len())?) {
            let sealed = self.store.keys.seal_with(At::new(keyspace::AUDIT, *key), plain, random)?;
            b.insert(&self.store.audit, key.to_be_bytes(), sealed);
        }
        Ok(())
    }

    fn get(&self, key: u64) -> Result<Option<SecretBytes>, StoreError> {
        if let Some(plain) = self.store.staged().get(&key) {
            return Ok(Some(SecretBytes::new(plain.clone())));
        }
        let value = self.store.audit.get(key.to_be_bytes())?;
        value.map(|v| self.store.unseal(At::new(keyspace::AUDIT, key), "audit", &v)).transpose()
    }

    /// The leaf `salt ‖ entry` at `index`.
    pub fn leaf(&self, index: u64) -> Result<Option<SecretBytes>, StoreError> {
        self.get(leaf_key(index)?)
    }

    /// The node at `(level, index)`; a leaf's hash also where the leaf alone was written.
    pub fn node(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let key = node_key(level, index)?;
        let corrupt = StoreError::Corrupt { keyspace: "audit", index: key };
        match self.get(key)? {
            Some(v) => v.expose().try_into().map(Some).map_err(|_| corrupt),
            None if level == 0 => Ok(self.leaf(index)?.map(|leaf| leaf_hash(leaf.expose(), &[]).0)),
            None => Ok(None),
        }
    }

    /// The leaves `from..to`, in order; ends early at the first that is not there.
    pub fn range(&self, from: u64, to: u64) -> Result<Vec<SecretBytes>, StoreError> {
        (from..to).map_while(|i| self.leaf(i).transpose()).collect()
    }
}

/// Leaves and nodes that are read already and have to be written.
#[must_use = "what is staged must be written before a snapshot of it counts"]
#[derive(Debug)]
pub struct Staged {
    audit: AuditStore,
    leaves: Vec<(u64, Vec<u8>)>,
    nodes: Vec<Node>,
}

impl Staged {
    /// Writes them.
    pub fn write(self) -> Result<(), StoreError> {
        self.audit.put(&self.leaves, &self.nodes)?;
        let mut staged = self.audit.store.staged();
        for (i, _) in &self.leaves {
            staged.remove(&leaf_key(*i)?);
        }
        for (level, i, _) in &self.nodes {
            staged.remove(&node_key(*level, *i)?);
        }
        Ok(())
    }
}
