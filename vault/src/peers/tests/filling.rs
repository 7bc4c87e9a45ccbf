//! Leaves from before a voter's time.

use super::world::*;
use crate::peers::backfill::{FillError, Others, Source, fill};
use crate::raft::{Filling, Store, testing};
use holdfast_types::VoterId;
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::v1;
use std::path::Path;
use std::sync::Arc;

fn leaf(index: u64) -> v1::LeafData {
    v1::LeafData { index, salt: vec![index as u8; 32], entry: format!("entry {index}").into_bytes() }
}

/// A tree of so many leaves.
fn tree(leaves: u64) -> Frontier {
    let mut tree = Frontier::default();
    for index in 0..leaves {
        let leaf = leaf(index);
        tree.push(leaf_hash(&leaf.salt, &leaf.entry));
    }
    tree
}

fn store(dir: &Path) -> Store {
    Store::create(&dir.join("db"), testing::keys(2, 9)).unwrap()
}

/// Voter 1 has `leaves`; a source that asks it, for voter 2.
async fn source(leaves: Vec<v1::LeafData>) -> (Two, Arc<dyn Source>) {
    let w = two().await;
    *w.one.ear.leaves.lock().unwrap() = leaves;
    let whom = vec![(w.one.id, w.one.addr.clone())];
    let others: Arc<dyn Source> = Arc::new(Others::new(Arc::clone(&w.two.peers), move || whom.clone()));
    (w, others)
}

#[tokio::test]
async fn leaves_from_before_a_snapshot_are_fetched_and_verified_up_to_the_edge() {
    let (dir, size) = (tempfile::tempdir().unwrap(), 700);
    let (_w, source) = source((0..size).map(leaf).collect()).await;
    let audit = store(dir.path()).audit();
    // Its own time began with leaf 600: those it has applied.
    let own: Vec<_> = (600..size).map(|i| (i, [leaf(i).salt, leaf(i).entry].concat())).collect();
    audit.append(&own, &[]).unwrap();
    let mut filled = Vec::new();
    loop {
        match fill(&audit, &tree(size), source.as_ref()).await.unwrap() {
            0 => break,
            leaves => filled.push(leaves),
        }
    }
    assert_eq!(filled, [512, 128], "one complete subtree at a time, and none that was there");
    assert_eq!((audit.filled().unwrap().below, audit.first_missing(0, size).unwrap()), (size, None));
    for index in 0..size {
        let stored = audit.leaf(index).unwrap().unwrap();
        assert_eq!(stored.expose(), [leaf(index).salt, leaf(index).entry].concat());
    }
    assert_eq!(audit.node(9, 0).unwrap(), Some(tree(size).peaks()[0].0));
    assert_eq!(audit.node(7, 4).unwrap(), Some(tree(size).peaks()[1].0));
    assert_eq!(audit.node(0, 520).unwrap(), Some(leaf_hash(&leaf(520).salt, &leaf(520).entry).0));
}

#[tokio::test]
async fn a_leaf_that_is_not_the_logs_is_found_and_fetched_again_even_after_a_restart() {
    let (dir, size) = (tempfile::tempdir().unwrap(), 300);
    let mut wrong: Vec<_> = (0..size).map(leaf).collect();
    wrong[100].entry.push(b'!');
    let (w, source) = source(wrong).await;
    {
        let audit = store(dir.path()).audit();
        let error = fill(&audit, &tree(size), source.as_ref()).await.unwrap_err();
        assert!(matches!(error, FillError::Wrong { from: 0 }), "{error}");
        assert_eq!(audit.filled().unwrap().below, 0);
    }
    *w.one.ear.leaves.lock().unwrap() = (0..size).map(leaf).collect();
    let audit = Store::open(&dir.path().join("db"), testing::keys(2, 9)).unwrap().audit();
    assert_eq!(audit.filled().unwrap().filling, Filling::Wrong);
    while fill(&audit, &tree(size), source.as_ref()).await.unwrap() > 0 {}
    assert_eq!(audit.filled().unwrap().below, size);
    assert_eq!(audit.leaf(100).unwrap().unwrap().expose(), [leaf(100).salt, leaf(100).entry].concat());
}

#[tokio::test]
async fn filling_goes_on_where_it_stopped_though_the_tree_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    // The other voter has half of them as yet.
    let (w, source) = source((0..260).map(leaf).collect()).await;
    let audit = store(dir.path()).audit();
    let error = fill(&audit, &tree(512), source.as_ref()).await.unwrap_err();
    assert!(matches!(error, FillError::Source(_)), "{error}");
    assert_eq!((audit.filled().unwrap().below, audit.first_missing(0, 512).unwrap()), (0, Some(260)));
    *w.one.ear.leaves.lock().unwrap() = (0..1030).map(leaf).collect();
    assert_eq!(fill(&audit, &tree(1030), source.as_ref()).await.unwrap(), 1024);
    assert_eq!(fill(&audit, &tree(1030), source.as_ref()).await.unwrap(), 4);
    assert_eq!(fill(&audit, &tree(1030), source.as_ref()).await.unwrap(), 2);
    assert_eq!(fill(&audit, &tree(1030), source.as_ref()).await.unwrap(), 0);
}

#[tokio::test]
async fn with_nobody_to_ask_nothing_is_put_in() {
    let (w, dir) = (two().await, tempfile::tempdir().unwrap());
    let nobody = Others::new(Arc::clone(&w.two.peers), Vec::<(VoterId, String)>::new);
    let audit = store(dir.path()).audit();
    assert!(matches!(fill(&audit, &tree(3), &nobody).await, Err(FillError::Source(_))));
    assert_eq!(audit.first_missing(0, 3).unwrap(), Some(0));
}
