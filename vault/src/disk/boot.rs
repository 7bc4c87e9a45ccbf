//! How often this disk was opened: counted in the store and in the file `anchor` beside the voter's directory.
//!
//! A copy of the directory that was put back has counted less than the anchor. Where the anchor was put back too, the other
//! voters know better (`Peer/HighWater`).
//! Must never: let the anchor be behind what it counts, or be mended by counting on.
//!
//! STORED: file `anchor`, `count u64 | id[16] | end u8` (0: none yet, 1: in order, 2: out for good) inside the frame of
//! `envelope`; golden file `vault/golden/anchor.hex`; mark `Boot` of the store.

use super::DiskError;
use super::envelope::Kind;
use crate::raft::{Store, StoreError};
use holdfast_types::{ClusterId, VoterId};
use serde::{Deserialize, Serialize};
use std::path::Path;

const KIND: Kind = Kind { name: "anchor", magic: *b"HFAN", format: 1 };

/// One opening of this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Its number, counted from 1.
    pub count: u64,
    /// Random: two copies of one disk that both went on tell themselves apart by it.
    pub id: [u8; 16],
}

/// A boot and how it ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootMark {
    boot: Boot,
    /// In order: nothing was written after that.
    at_rest: bool,
    /// The others found out that this voter must not take part: it never does again.
    out: bool,
}

impl BootMark {
    fn encode(&self) -> Vec<u8> {
        [self.boot.count.to_be_bytes().as_slice(), &self.boot.id, &[self.end()]].concat()
    }

    fn decode(body: &[u8]) -> Result<Self, DiskError> {
        let corrupt = DiskError::Corrupt { what: KIND.name, why: "malformed" };
        let Some((count, rest)) = body.split_first_chunk::<8>() else { return Err(corrupt) };
        match rest.split_first_chunk::<16>() {
            Some((id, &[end @ 0..=2])) => {
                let boot = Boot { count: u64::from_be_bytes(*count), id: *id };
                Ok(Self { boot, at_rest: end == 1, out: end == 2 })
            }
            Some(_) | None => Err(corrupt),
        }
    }

    /// What never goes back.
    fn position(&self) -> (u64, u8) {
        (self.boot.count, self.end())
    }

    fn end(&self) -> u8 {
        if self.out { 2 } else { u8::from(self.at_rest) }
    }
}

/// Counts this opening of `store`, once for each process, before anything else is done with it.
///
/// # Errors
/// [`StoreError::SetBack`] if the store is an older copy of itself, or a copy that went on elsewhere; [`StoreError::Out`] if
/// this voter is out for good.
pub fn begin(store: &Store, state_dir: &Path) -> Result<Boot, StoreError> {
    let known = store.boot()?;
    check(known.as_ref(), load(store, state_dir, known.is_none())?.as_ref())?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| DiskError::Entropy)?;
    let boot = Boot { count: known.map_or(0, |k| k.boot.count).saturating_add(1), id };
    put(store, state_dir, BootMark { boot, at_rest: false, out: false })?;
    Ok(boot)
}

/// Says that `boot` ends in order: a store that lacks any of what it wrote is then known as set back. Call it last of all.
pub fn rest(store: &Store, state_dir: &Path, boot: Boot) -> Result<(), StoreError> {
    store.flush()?;
    put(store, state_dir, BootMark { boot, at_rest: true, out: false })
}

/// Says that this voter never takes part again: it is not opened any more.
pub fn out(store: &Store, state_dir: &Path, boot: Boot) -> Result<(), StoreError> {
    put(store, state_dir, BootMark { boot, at_rest: false, out: true })
}

/// Forgets a voter that was founded here and never opened.
pub fn forget(state_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(state_dir.join(KIND.name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The store first: after a crash between the two it is ahead, which the next boot mends.
fn put(store: &Store, state_dir: &Path, mark: BootMark) -> Result<(), StoreError> {
    store.put_boot(&mark)?;
    let keys = store.keys();
    Ok(KIND.replace(state_dir, &KIND.frame(keys.cluster(), keys.voter(), &mark.encode()))?)
}

fn check(known: Option<&BootMark>, anchor: Option<&BootMark>) -> Result<(), StoreError> {
    if known.into_iter().chain(anchor).any(|m| m.out) {
        return Err(StoreError::Out);
    }
    let count = |m: Option<&BootMark>| m.map_or(0, |m| m.boot.count);
    match (known, anchor) {
        (None, None) => Ok(()),
        // The very first boot ended between the two.
        (Some(k), None) if k.boot.count == 1 && !k.at_rest => Ok(()),
        (Some(k), None) => Err(StoreError::NoAnchor { store: k.boot.count }),
        (_, Some(a)) => {
            let same_count_of_another = known.is_some_and(|k| k.boot.count == a.boot.count && k.boot.id != a.boot.id);
            if same_count_of_another || known.map(BootMark::position) < Some(a.position()) {
                return Err(StoreError::SetBack { anchor: a.boot.count, store: count(known) });
            }
            Ok(())
        }
    }
}

/// The boot that this voter's anchor counts, and how it ended: 0 not in order, 1 in order, 2 out for good; `None` where there
/// is no anchor.
///
/// # Errors
/// If the file is damaged, or another voter's or cluster's.
pub fn anchored(state_dir: &Path, cluster: &ClusterId, voter: VoterId) -> Result<Option<(Boot, u8)>, DiskError> {
    Ok(anchor(state_dir, cluster, voter)?.map(|mark| (mark.boot, mark.end())))
}

fn anchor(state_dir: &Path, cluster: &ClusterId, voter: VoterId) -> Result<Option<BootMark>, DiskError> {
    let file = match KIND.read(state_dir) {
        Ok(file) => file,
        Err(DiskError::Missing(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.cluster != *cluster {
        return Err(DiskError::OtherCluster { what: KIND.name });
    }
    if file.voter != voter {
        return Err(DiskError::OtherVoter { what: KIND.name });
    }
    BootMark::decode(&file.body).map(Some)
}

/// The anchor; one that another voter left here counts for nothing beside a store that was never opened.
fn load(store: &Store, state_dir: &Path, new: bool) -> Result<Option<BootMark>, StoreError> {
    let keys = store.keys();
    match anchor(state_dir, keys.cluster(), keys.voter()) {
        Ok(found) => Ok(found),
        Err(DiskError::OtherCluster { .. } | DiskError::OtherVoter { .. }) if new => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
