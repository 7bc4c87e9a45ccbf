//! Leaves that this voter never applied, because it began from a snapshot: which are missing, and putting them in.
//!
//! Must never: count leaves as whole that were not verified against the tree.

use super::audit::{AuditStore, Node};
use super::store::{Flush, Mark, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is known of the leaves of a subtree that is being put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filling {
    /// None is: a leaf is here by being applied, or is missing.
    No,
    /// Leaves of others are among them that have not been verified.
    Unverified,
    /// Some of them are wrong: all have to be fetched again.
    Wrong,
}

/// How far the leaves are whole. STORED: the mark `Filled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// All leaves below this one are here and right.
    pub below: u64,
    /// What about the subtree that begins there.
    pub filling: Filling,
}

impl AuditStore {
    /// How far the leaves are known to be whole.
    pub fn filled(&self) -> Result<Filled, StoreError> {
        let known = self.store.mark(Mark::Filled)?;
        Ok(known.unwrap_or(Filled { below: 0, filling: Filling::No }))
    }

    /// Records how far they are; on disk when this returns, with all leaves that were read before: also those that are about to
    /// be written, which count already.
    pub fn set_filled(&self, filled: Filled) -> Result<(), StoreError> {
        let staged: Vec<(u64, Vec<u8>)> = self.store.staged().iter().map(|(key, v)| (*key, v.clone())).collect();
        let staged: Vec<(u64, &[u8])> = staged.iter().map(|(key, plain)| (*key, plain.as_slice())).collect();
        self.store.write(Flush::Sync, |b| {
            self.seal_into(b, &staged)?;
            self.store.put_mark(b, Mark::Filled, &filled)
        })
    }

    /// The first leaf of `from..until` that is not here. Reads keys alone, but all of them.
    pub fn first_missing(&self, from: u64, until: u64) -> Result<Option<u64>, StoreError> {
        let mut wanted = from;
        // Asked before the disk: what is staged no more then is there. It is the log's end, so it comes last.
        let staged: BTreeSet<u64> =
            self.store.staged().keys().copied().filter(|key| (from..until).contains(key)).collect();
        for item in self.store.audit.range(from.to_be_bytes()..until.to_be_bytes()) {
            let key = item.key()?;
            let corrupt = StoreError::Corrupt { keyspace: "audit", index: wanted };
            if u64::from_be_bytes(<[u8; 8]>::try_from(&*key).map_err(|_| corrupt)?) != wanted {
                break;
            }
            wanted += 1;
        }
        while staged.contains(&wanted) {
            wanted += 1;
        }
        Ok((wanted < until).then_some(wanted))
    }

    /// Puts in leaves (index, salt ‖ entry) and nodes that come from another voter. They replace what is there.
    pub fn fill(&self, leaves: &[(u64, Vec<u8>)], nodes: &[Node]) -> Result<(), StoreError> {
        self.put(leaves, nodes)
    }
}
