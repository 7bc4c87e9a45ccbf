//! The rotation of the disk key: stopped anywhere, twice in a row, it loses nothing, locks nobody out, and ends.

use super::*;
use crate::disk::slots::Recipient;
use crate::disk::testing::*;
use crate::raft::testing::{Recorder, start_over, values};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const COMMANDS: u64 = 12;
const LEAVES: u64 = 300;

fn leaf(i: u64) -> Vec<u8> {
    format!("salt and entry {i}").into_bytes()
}

/// A voter that has a log, a snapshot in the middle of it, and leaves; returns its disk key.
async fn used_voter(dir: &Path) -> keys::DiskKey {
    let dk = make_voter(dir, CLUSTER, VOTER);
    let store = Store::open(dir, opened(dir)).unwrap();
    let leaves: Vec<_> = (0..LEAVES).map(|i| (i, leaf(i))).collect();
    store.audit().append(&leaves, &[(0, 0, [1; 32])]).unwrap();
    let voter = start_over(store, 1000).await;
    for i in 0..COMMANDS {
        if i == COMMANDS / 2 {
            voter.snapshot().await.unwrap();
        }
        voter.proposer().propose(i.to_be_bytes().to_vec()).await.unwrap();
    }
    voter.until(PATIENCE, |s| s.snapshot.is_some()).await.unwrap().unwrap();
    voter.shutdown().await;
    // The engine cuts a journal to what it holds when it opens it: copies are small then.
    drop(Store::open(dir, opened(dir)).unwrap());
    dk
}

/// Stops at the step `n`, counted from 1.
fn stop_at(n: usize) -> Steps {
    let left = AtomicUsize::new(n);
    Arc::new(move |_| match left.fetch_sub(1, Ordering::SeqCst) {
        1 => Err(StoreError::Stopped("by the test".to_owned())),
        _ => Ok(()),
    })
}

/// Starts the voter in `dir` as its operators do, and replaces its disk key or goes on with that.
async fn go_on(dir: &Path, steps: Steps, anew: bool) -> Result<(), RotationError> {
    let keys = opened(dir);
    let store = Store::open(dir, Arc::clone(&keys)).unwrap();
    let voter = start_over(store.clone(), 1000).await;
    let wanted = wanted();
    let rotation = Rotation { steps, ..Rotation::new(dir, &keys, &store, &voter, &wanted).unwrap() };
    let done = if anew { rotation.replace().await } else { rotation.resume().await };
    drop(rotation);
    voter.shutdown().await;
    done
}

/// Nothing is lost, and nothing opens with the old key.
async fn check(dir: &Path, old: &keys::DiskKey, generation: u32) {
    let slots = Slots::load(dir).unwrap();
    assert_eq!((slots.current(), slots.pending()), (generation, None));
    assert!(matches!(slots.open(vec![old.duplicate()]), Err(DiskError::BadKey)));
    let keys = opened(dir);
    let back = Ident::load(dir, &keys).unwrap();
    assert_eq!((back.kem_ikm.expose(), back.next_kem_ikm.unwrap().expose()), (&[5; 32], &[6; 32]));
    let store = Store::open(dir, Arc::clone(&keys)).unwrap();
    let by_old = keys::DiskKeys::new(CLUSTER, VOTER, Generation { number: 1, key: old.duplicate() }, None).unwrap();
    assert!(Ident::load(dir, &by_old).is_err());
    let opened_by = |keys: &DiskKeys| values(&store, keys).unwrap().values().filter(|v| v.is_some()).count();
    assert_eq!(opened_by(&by_old), 0, "values that the old key opens");
    assert_eq!(opened_by(&keys), values(&store, &keys).unwrap().len(), "values that the new key opens");
    let leaves = store.audit().range(0, LEAVES + 1).unwrap();
    assert!(leaves.iter().map(|l| l.expose().to_vec()).eq((0..LEAVES).map(leaf)));
    assert_eq!(store.audit().node(0, 0).unwrap(), Some([1; 32]));
    let voter = start_over(store, 1000).await;
    voter.confirm_leading().await.unwrap();
    assert_eq!(voter.machine().read(|m: &Recorder| m.commands.clone()).unwrap(), (0..COMMANDS).collect::<Vec<_>>());
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_key_rotation_stopped_between_any_two_steps_twice_in_a_row_loses_nothing_and_finishes() {
    let template = tempfile::tempdir().unwrap();
    let old = used_voter(template.path()).await;
    for second in [1, 3] {
        let mut steps = 0;
        for first in 1.. {
            let dir = tempfile::tempdir().unwrap();
            copy(template.path(), dir.path());
            let stopped = go_on(dir.path(), stop_at(first), true).await;
            if stopped.is_ok() {
                break;
            }
            steps += 1;
            assert!(matches!(stopped, Err(RotationError::Store(StoreError::Stopped(_)))), "step {first}: {stopped:?}");
            // Killed again on the way: `go_on` opens the disk with both keys that were to be kept.
            if let Err(e) = go_on(dir.path(), stop_at(second), false).await {
                assert!(matches!(e, RotationError::Store(StoreError::Stopped(_))), "step {first}, {second}: {e}");
            }
            go_on(dir.path(), stop_at(usize::MAX), false).await.unwrap();
            check(dir.path(), &old, 2).await;
        }
        assert!(steps >= 8, "only {steps} steps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_the_next_one_begins_anew_and_an_unfinished_one_is_finished_before() {
    let dir = tempfile::tempdir().unwrap();
    let old = used_voter(dir.path()).await;
    go_on(dir.path(), stop_at(3), true).await.unwrap_err();
    go_on(dir.path(), stop_at(usize::MAX), true).await.unwrap();
    check(dir.path(), &old, 3).await;
    // Nothing is under way: nothing is done.
    go_on(dir.path(), stop_at(1), false).await.unwrap();
    check(dir.path(), &old, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_key_is_replaced_while_entries_are_written_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    make_voter(dir.path(), CLUSTER, VOTER);
    let keys = opened(dir.path());
    let store = Store::open(dir.path(), Arc::clone(&keys)).unwrap();
    let voter = start_over(store.clone(), 1000).await;
    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (proposer, audit, enough) = (voter.proposer(), store.audit(), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut positions = Vec::new();
                while !enough.load(Ordering::SeqCst) {
                    let number = writer << 32 | positions.len() as u64;
                    positions.push((number, proposer.propose(number.to_be_bytes().to_vec()).await.unwrap()));
                    audit.append(&[(number, leaf(number))], &[]).unwrap();
                }
                positions
            })
        })
        .collect();
    for generation in [2, 3] {
        replace_disk_key(dir.path(), &keys, &store, &voter, &wanted(), &None).await.unwrap();
        assert_eq!((keys.newest(), keys.is_replacing()), (generation, false));
    }
    enough.store(true, Ordering::SeqCst);
    let written = futures::future::join_all(writers).await.into_iter().flat_map(|w| w.unwrap());
    let written: Vec<(u64, u64)> = written.collect();
    voter.shutdown().await;
    drop(store);
    let store = Store::open(dir.path(), opened(dir.path())).unwrap();
    assert!(!store.is_old_anywhere().unwrap());
    for (number, _) in &written {
        assert_eq!(store.audit().leaf(*number).unwrap().unwrap().expose(), leaf(*number));
    }
    let voter = start_over(store, 1000).await;
    voter.confirm_leading().await.unwrap();
    let commands = voter.machine().read(|m: &Recorder| m.commands.clone()).unwrap();
    assert!(written.iter().all(|(number, position)| commands.get(*position as usize) == Some(number)));
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_from_before_the_rotation_are_gone_and_not_sealed_again() {
    let dir = tempfile::tempdir().unwrap();
    used_voter(dir.path()).await;
    let keys = opened(dir.path());
    let store = Store::open(dir.path(), Arc::clone(&keys)).unwrap();
    let before = values(&store, &keys).unwrap();
    let last = store.last_log_index().unwrap();
    assert!(before.contains_key(&format!("log/{last}")));
    let voter = start_over(store.clone(), 1000).await;
    replace_disk_key(dir.path(), &keys, &store, &voter, &wanted(), &None).await.unwrap();
    assert!(!store.log_reaches_back_to(last).unwrap());
    let slots = Slots::load(dir.path()).unwrap();
    let unlock = slots.iter().filter(|s| s.recipient == Recipient::Unlock { epoch: 1 });
    assert_eq!(unlock.count(), 1, "a slot of the old key is left");
    voter.shutdown().await;
}
