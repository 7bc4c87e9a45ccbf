//! Every file of a voter, damaged in every way: the voter says what is wrong, or nothing is.

use super::boot;
use super::ident::Ident;
use super::slots::{Recipient, Slots};
use super::testing::*;
use super::{DiskError, chain};
use crate::raft::testing::{DEADLINE, Values, read_all, settle_tables, start_over};
use crate::raft::{Store, StoreError};
use holdfast_types::{ClusterId, VoterId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CHAIN: &[u8] = b"box of the secret before";

/// Makes a voter in `state_dir` that has been used and has ended in order.
async fn make(state_dir: &Path, cluster: ClusterId, voter: VoterId, leaf: &str) {
    let dir = state_dir.join("voter");
    make_voter(&dir, cluster, voter);
    chain::store(&dir, &cluster, voter, 1, CHAIN).unwrap();
    for n in 0..2u64 {
        let store = Store::open(&dir, opened(&dir)).unwrap();
        let boot = boot::begin(&store, state_dir).unwrap();
        if voter == VOTER {
            let running = start_over(store.clone(), 1000).await;
            for i in 0..10u64 {
                running.proposer().propose(i.to_be_bytes().to_vec()).await.unwrap();
            }
            if n == 0 {
                running.snapshot().await.unwrap();
                running.until(DEADLINE, |s| s.snapshot.is_some()).await.unwrap().unwrap();
            }
            running.shutdown().await;
        }
        store.audit().append(&[(n, format!("{leaf} {n}").into_bytes())], &[]).unwrap();
        if n == 0 {
            settle_tables(&store);
        }
        boot::rest(&store, state_dir, boot).unwrap();
    }
}

/// Why a voter does not open.
#[derive(Debug)]
enum Named {
    Disk(DiskError),
    Store(StoreError),
}

impl From<DiskError> for Named {
    fn from(e: DiskError) -> Self {
        Self::Disk(e)
    }
}
impl From<StoreError> for Named {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// Opens the voter as its operator does, and reads all of it but the count of its boots.
fn read(state_dir: &Path) -> Result<(Values, Vec<u8>), Named> {
    let dir = state_dir.join("voter");
    let slots = Slots::load(&dir)?;
    chain::load(&dir, slots.cluster(), slots.voter())?;
    let keys = Arc::new(slots.open(unlocked(&slots, Recipient::Unlock { epoch: 1 }, UNLOCK))?);
    let ident = Ident::load(&dir, &keys)?;
    let store = Store::open(&dir, Arc::clone(&keys))?;
    boot::begin(&store, state_dir)?;
    let mut values = read_all(&store, &keys)?;
    values.remove("meta/5");
    // How far the log was known to be committed: written without waiting for the disk, and an earlier mark is as true.
    values.remove("meta/2");
    Ok((values, ident.kem_ikm.expose().to_vec()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

fn copied(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_a_voter_damaged_cut_or_gone_is_named_and_never_read_as_something_else() {
    let voter = tempfile::tempdir().unwrap();
    make(voter.path(), CLUSTER, VOTER, "leaf").await;
    let whole = read(copied(voter.path()).path()).unwrap();
    let names: Vec<PathBuf> =
        files(voter.path()).iter().map(|f| f.strip_prefix(voter.path()).unwrap().to_owned()).collect();
    assert!(names.len() > 10, "{names:?}");
    let mut named = 0;
    for name in &names {
        let honest = std::fs::read(voter.path().join(name)).unwrap();
        let len = honest.len();
        let flips = [0, len / 4, len / 2, len.saturating_sub(1)].into_iter().filter(|n| *n < len);
        let mut cases: Vec<(String, Option<Vec<u8>>)> = vec![("gone".to_owned(), None)];
        for n in flips {
            let mut bad = honest.clone();
            bad[n] ^= 0x10;
            cases.push((format!("bit {n} flipped"), Some(bad)));
        }
        for n in [0, len / 2, len.saturating_sub(1)] {
            cases.push((format!("cut at {n}"), Some(honest[..n].to_vec())));
        }
        for (what, bad) in cases {
            let dir = copied(voter.path());
            let path = dir.path().join(name);
            match bad {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            match read(dir.path()) {
                Ok(found) => {
                    let other = |(key, value): &(&String, _)| whole.0.get(*key) != Some(*value);
                    let changed: Vec<_> = found.0.iter().filter(other).collect();
                    let gone: Vec<_> = whole.0.keys().filter(|k| !found.0.contains_key(*k)).collect();
                    assert!(found == whole, "{}: {what}: {changed:?} changed, {gone:?} gone", name.display());
                }
                Err(Named::Disk(e)) => assert!(!e.to_string().is_empty()),
                Err(Named::Store(e)) => assert!(!e.to_string().is_empty()),
            }
            named += usize::from(read(dir.path()).is_err());
        }
    }
    assert!(named > names.len(), "only {named} of the damages were noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_files_that_are_the_voters_own_is_always_noticed() {
    let voter = tempfile::tempdir().unwrap();
    make(voter.path(), CLUSTER, VOTER, "leaf").await;
    for name in ["voter/slots", "voter/ident", "voter/unlock.chain", "anchor"] {
        let honest = std::fs::read(voter.path().join(name)).unwrap();
        for n in (0..honest.len()).step_by(7) {
            let mut bad = honest.clone();
            bad[n] ^= 1;
            for bad in [bad.as_slice(), &honest[..n]] {
                let dir = copied(voter.path());
                std::fs::write(dir.path().join(name), bad).unwrap();
                let found = read(dir.path());
                let corrupt = matches!(
                    found,
                    Err(Named::Disk(DiskError::Corrupt { .. })
                        | Named::Store(StoreError::File(DiskError::Corrupt { .. })))
                );
                assert!(corrupt, "{name} at {n}: {found:?}");
            }
        }
    }
    for name in ["voter/slots", "voter/ident", "voter/version", "voter/keyspaces/0/current", "anchor"] {
        let dir = copied(voter.path());
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let found = read(dir.path());
        let missing = matches!(
            found,
            Err(Named::Disk(DiskError::Missing(_))
                | Named::Store(StoreError::Missing { .. } | StoreError::NoAnchor { store: 2 }))
        );
        assert!(missing, "{name}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_voter_or_cluster_are_never_taken_for_its_own() {
    let (voter, other, foreign) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(voter.path(), CLUSTER, VOTER, "leaf").await;
    make(other.path(), CLUSTER, VoterId(2), "another leaf").await;
    make(foreign.path(), ClusterId([8; 32]), VOTER, "a foreign leaf").await;
    let whole = read(copied(voter.path()).path()).unwrap();
    for from in [other.path(), foreign.path()] {
        for file in files(from) {
            let name = file.strip_prefix(from).unwrap();
            let dir = copied(voter.path());
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            copy(&file, &path);
            if let Ok(found) = read(dir.path()) {
                assert_eq!(found, whole, "{}", name.display());
            }
        }
        for name in ["slots", "ident", "unlock.chain"] {
            let dir = copied(voter.path());
            copy(&from.join("voter").join(name), &dir.path().join("voter").join(name));
            assert!(read(dir.path()).is_err(), "{name}");
        }
        // The whole store of another, under this voter's slots and identity.
        let dir = copied(from);
        for name in ["slots", "ident", "unlock.chain"] {
            copy(&voter.path().join("voter").join(name), &dir.path().join("voter").join(name));
        }
        assert!(matches!(read(dir.path()), Err(Named::Store(StoreError::NotOurs))));
    }
}
