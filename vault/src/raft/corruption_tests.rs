//! Damage and foreign stores are named; wrong data never comes out.

use super::testing::*;
use super::*;
use crate::disk::keys::At;
use crate::disk::keyspace;
use fjall::Keyspace;
use holdfast_types::VoterId;
use openraft::RaftLogReader as _;

/// Flips one bit in the last stored value of a keyspace.
fn flip(keyspace: &Keyspace, byte: usize) -> u64 {
    flip_in(keyspace, keyspace.last_key_value().unwrap(), byte)
}

fn flip_in(keyspace: &Keyspace, item: fjall::Guard, byte: usize) -> u64 {
    let (key, value) = item.into_inner().unwrap();
    let mut bytes = value.to_vec();
    let n = byte % bytes.len();
    bytes[n] ^= 0x10;
    keyspace.insert(key.clone(), bytes).unwrap();
    u64::from_be_bytes((*key).try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_log_entry_is_named_and_never_read() {
    let dir = tempfile::tempdir().unwrap();
    one_voter_counts_to(dir.path(), 3).await;
    let store = store(dir.path());
    let len = store.log.last_key_value().unwrap().into_inner().unwrap().1.len();
    for byte in 0..len {
        let mut log = LogStore::open(store.clone()).unwrap();
        let index = flip(&store.log, byte);
        let read = log.try_get_log_entries(index..=index).await.unwrap_err().to_string();
        assert!(read.contains("corrupt") && read.contains("log"), "{read}");
        assert!(matches!(LogStore::open(store.clone()), Err(StoreError::Corrupt { keyspace: "log", .. })));
        flip(&store.log, byte);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_snapshot_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let voter = start(dir.path(), 10).await;
        for i in 0..30u64 {
            voter.proposer().propose(i.to_be_bytes().to_vec()).await.unwrap();
        }
        settled(&voter, |s| s.purged.is_some()).await;
        voter.shutdown().await;
    }
    let store = store(dir.path());
    flip(&store.snap, 100);
    assert!(matches!(store.load_snapshot(), Err(StoreError::Corrupt { keyspace: "snap", .. })));
    let options = Options { id: VoterId(1), snapshot_every: 10 };
    let start = Voter::start(store, Recorder::default(), &options, PeerNetwork::alone()).await;
    assert!(matches!(start, Err(StartError::Fatal(why)) if why.contains("corrupt")));
}

#[test]
fn a_flipped_bit_in_an_audit_leaf_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.audit().append(&[(0, b"leaf".to_vec())], &[]).unwrap();
    // The owner's mark lies behind the leaves.
    flip_in(&store.audit, store.audit.first_key_value().unwrap(), 80);
    assert!(matches!(store.audit().leaf(0), Err(StoreError::Corrupt { keyspace: "audit", index: 0 })));
}

#[test]
fn a_store_of_another_voter_or_key_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()));
    for keys in [keys(2, 9), keys(1, 8)] {
        assert!(matches!(Store::open(&dir.path().join("db"), keys), Err(StoreError::NotOurs)));
    }
    drop(store(dir.path()));
}

#[test]
fn a_store_is_made_or_opened_and_never_both() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    for _ in 0..2 {
        assert!(matches!(Store::open(&db, keys(1, 9)), Err(StoreError::Missing { what: "the store" })));
        std::fs::create_dir_all(&db).unwrap();
        assert!(std::fs::read_dir(&db).unwrap().next().is_none(), "opening made something");
    }
    drop(Store::create(&db, keys(1, 9)).unwrap());
    assert!(matches!(Store::create(&db, keys(1, 9)), Err(StoreError::Exists)));
    drop(Store::open(&db, keys(1, 9)).unwrap());
}

#[test]
fn an_emptied_part_of_a_store_is_not_taken_for_a_new_one() {
    for part in ["audit", "meta"] {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = store(dir.path());
            store.audit().append(&[(0, b"leaf".to_vec())], &[]).unwrap();
            let keyspace = if part == "audit" { &store.audit } else { &store.meta };
            keyspace.clear().unwrap();
            store.flush().unwrap();
        }
        let again = Store::open(&dir.path().join("db"), keys(1, 9));
        assert!(matches!(again, Err(StoreError::Missing { what }) if what == part), "{part}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_first_entries_are_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    one_voter_counts_to(dir.path(), 5).await;
    {
        let store = store(dir.path());
        let (key, _) = store.log.first_key_value().unwrap().into_inner().unwrap();
        store.log.remove(key).unwrap();
        store.flush().unwrap();
    }
    let again = Store::open(&dir.path().join("db"), keys(1, 9));
    assert!(matches!(again, Err(StoreError::Corrupt { keyspace: "log", index: 0 })), "{again:?}");
}

#[test]
fn an_entry_moved_to_another_index_does_not_open() {
    let keys = keys(1, 9);
    let e = Entry { log_id: codec::log_id(4, 10), payload: Payload::Normal(Batch::from(vec![1, 2, 3])) };
    let sealed = codec::seal_entry(&keys, &e).unwrap();
    assert_eq!(codec::open_entry(&keys, 10, &sealed).unwrap(), e);
    assert!(codec::open_entry(&keys, 11, &sealed).is_err());
    let mut other_term = sealed;
    other_term[7] ^= 1;
    assert!(codec::open_entry(&keys, 10, &other_term).is_err());
    let audit = keys.seal(At::new(keyspace::AUDIT, 0), b"x").unwrap();
    assert!(keys.open(At::new(keyspace::SNAP, 0), &audit).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_reach_back_to_the_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    one_voter_counts_to(dir.path(), 5).await;
    {
        let store = store(dir.path());
        let purged = codec::log_id(1, 3);
        store.write(store::Flush::Sync, |b| store.put_mark(b, store::Mark::Purged, &purged)).unwrap();
    }
    let again = Store::open(&dir.path().join("db"), keys(1, 9));
    assert!(matches!(again, Err(StoreError::Gap { purged: Some(3), applied: None })), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_shorter_than_what_was_committed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    one_voter_counts_to(dir.path(), 5).await;
    let store = store(dir.path());
    let (key, _) = store.log.last_key_value().unwrap().into_inner().unwrap();
    store.log.remove(key).unwrap();
    assert!(matches!(LogStore::open(store), Err(StoreError::CutOff { .. })));
}

#[test]
fn nothing_readable_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = store(dir.path());
        store.audit().append(&[(0, b"a telling name in clear".to_vec())], &[]).unwrap();
        store.save_snapshot(&SnapshotMeta::default(), b"a telling name in clear").unwrap();
    }
    let mut files = vec![dir.path().to_owned()];
    let mut bytes = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            let content = std::fs::read(&path).unwrap();
            bytes += content.len();
            assert!(!content.windows(12).any(|w| w == b"telling name"), "{}", path.display());
        }
    }
    assert!(bytes > 0);
}
