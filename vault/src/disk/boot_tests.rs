//! Boots: an older copy of a disk is known as one, a crash between the two counts is not taken for one.

use super::*;
use crate::disk::testing::{copy, unhex};
use crate::raft::testing::{keys, store};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

const CLUSTER: ClusterId = ClusterId([7; 32]);

fn boot(dir: &Path) -> Result<Boot, StoreError> {
    begin(&store(dir), dir)
}

fn put_back(dir: &Path, copied: &Path) {
    std::fs::remove_dir_all(dir.join("db")).unwrap();
    copy(copied, &dir.join("db"));
}

#[test]
fn each_opening_is_counted_in_the_disk_and_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let boots: Vec<Boot> = (0..3).map(|_| boot(dir.path()).unwrap()).collect();
    assert_eq!(boots.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 2, 3]);
    assert_ne!(boots[1].id, boots[2].id);
    assert_eq!(store(dir.path()).boot().unwrap().map(|m| m.boot), Some(boots[2]));
}

#[test]
fn an_old_copy_of_the_whole_directory_is_known_by_the_anchor() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    boot(dir.path()).unwrap();
    copy(&dir.path().join("db"), &old.path().join("db"));
    boot(dir.path()).unwrap();
    put_back(dir.path(), &old.path().join("db"));
    for _ in 0..2 {
        let again = boot(dir.path());
        assert!(matches!(again, Err(StoreError::SetBack { anchor: 2, store: 1 })), "{again:?}");
    }
}

#[test]
fn a_copy_that_went_on_elsewhere_does_not_come_back_at_the_same_count() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    boot(dir.path()).unwrap();
    copy(dir.path(), other.path());
    let (here, there) = (boot(dir.path()).unwrap(), boot(other.path()).unwrap());
    assert_eq!((here.count, there.count), (2, 2));
    put_back(dir.path(), &other.path().join("db"));
    assert!(matches!(boot(dir.path()), Err(StoreError::SetBack { anchor: 2, store: 2 })));
}

#[test]
fn nothing_that_was_written_before_an_orderly_end_goes_missing_unnoticed() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = boot(dir.path()).unwrap();
    copy(&dir.path().join("db"), &old.path().join("db"));
    rest(&store(dir.path()), dir.path(), first).unwrap();
    assert_eq!(boot(dir.path()).unwrap().count, 2);
    put_back(dir.path(), &old.path().join("db"));
    assert!(matches!(boot(dir.path()), Err(StoreError::SetBack { anchor: 2, store: 1 })));

    let dir = tempfile::tempdir().unwrap();
    let first = boot(dir.path()).unwrap();
    copy(&dir.path().join("db"), &old.path().join("same boot"));
    rest(&store(dir.path()), dir.path(), first).unwrap();
    put_back(dir.path(), &old.path().join("same boot"));
    assert!(matches!(boot(dir.path()), Err(StoreError::SetBack { anchor: 1, store: 1 })));
}

#[test]
fn a_copy_with_its_anchor_is_left_to_the_other_voters() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    boot(dir.path()).unwrap();
    copy(dir.path(), old.path());
    let newest = boot(dir.path()).unwrap();
    let again = boot(old.path()).unwrap();
    // What the others compare: the same count, by another.
    assert_eq!(again.count, newest.count);
    assert_ne!(again.id, newest.id);
}

#[test]
fn a_voter_that_was_found_to_be_out_is_never_opened_again() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = boot(dir.path()).unwrap();
    copy(&dir.path().join("db"), &old.path().join("db"));
    out(&store(dir.path()), dir.path(), first).unwrap();
    for _ in 0..2 {
        assert!(matches!(boot(dir.path()), Err(StoreError::Out)));
    }
    // The file beside it knows as well; and where only the store was written, that is enough.
    put_back(dir.path(), &old.path().join("db"));
    assert!(matches!(boot(dir.path()), Err(StoreError::Out)));
    let dir = tempfile::tempdir().unwrap();
    let first = boot(dir.path()).unwrap();
    store(dir.path()).put_boot(&BootMark { boot: first, at_rest: false, out: true }).unwrap();
    assert!(matches!(boot(dir.path()), Err(StoreError::Out)));
}

#[test]
fn a_crash_between_the_two_counts_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    for count in [1, 3] {
        let boot_ = Boot { count, id: [9; 16] };
        store(dir.path()).put_boot(&BootMark { boot: boot_, at_rest: false, out: false }).unwrap();
        assert_eq!(boot(dir.path()).unwrap().count, count + 1);
    }
}

#[test]
fn an_anchor_that_is_missing_damaged_or_anothers_is_named() {
    let dir = tempfile::tempdir().unwrap();
    boot(dir.path()).unwrap();
    boot(dir.path()).unwrap();
    let path = dir.path().join("anchor");
    let file = std::fs::read(&path).unwrap();
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 0x20;
        for bad in [bad.as_slice(), &file[..n]] {
            std::fs::write(&path, bad).unwrap();
            let e = boot(dir.path()).unwrap_err();
            assert!(matches!(e, StoreError::File(DiskError::Corrupt { what: "anchor", .. })), "byte {n}: {e}");
        }
    }
    let body = BootMark { boot: Boot { count: 2, id: [1; 16] }, at_rest: false, out: false }.encode();
    std::fs::write(&path, KIND.frame(&CLUSTER, VoterId(2), &body)).unwrap();
    assert!(matches!(boot(dir.path()), Err(StoreError::File(DiskError::OtherVoter { what: "anchor" }))));
    std::fs::write(&path, KIND.frame(&ClusterId([8; 32]), VoterId(1), &body)).unwrap();
    assert!(matches!(boot(dir.path()), Err(StoreError::File(DiskError::OtherCluster { what: "anchor" }))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(boot(dir.path()), Err(StoreError::NoAnchor { store: 2 })));
    std::fs::write(&path, file).unwrap();
    assert_eq!(boot(dir.path()).unwrap().count, 3);
}

#[test]
fn an_anchor_of_another_voter_does_not_hinder_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    boot(dir.path()).unwrap();
    boot(dir.path()).unwrap();
    let new = Store::create(&dir.path().join("new"), keys(2, 9)).unwrap();
    assert_eq!(begin(&new, dir.path()).unwrap().count, 1);
    assert_eq!(begin(&new, dir.path()).unwrap().count, 2);
    forget(dir.path()).unwrap();
    forget(dir.path()).unwrap();
    assert!(!dir.path().join("anchor").exists());
}

/// STORED: golden file. If this fails, the anchor of an old voter is not understood any more: make a new format instead.
#[test]
fn the_anchor_is_stored_as_it_always_was() {
    let golden = unhex(include_str!("../../golden/anchor.hex").trim());
    let file = KIND.unframe(&golden).unwrap();
    assert_eq!((file.cluster, file.voter), (CLUSTER, VoterId(1)));
    let mark = BootMark { boot: Boot { count: 5, id: [9; 16] }, at_rest: true, out: false };
    assert_eq!(BootMark::decode(&file.body).unwrap(), mark);
    assert_eq!(*KIND.frame(&CLUSTER, VoterId(1), &mark.encode()), golden);
    assert!(BootMark::decode(&[&file.body[..], &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn a_mark_comes_back_as_it_was_and_no_other_bytes_are_one(
        count in any::<u64>(), id in any::<[u8; 16]>(), at_rest in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mark = BootMark { boot: Boot { count, id }, at_rest, out: false };
        let written = mark.encode();
        prop_assert_eq!(BootMark::decode(&written).unwrap(), mark);
        prop_assert!(BootMark::decode(&written[..written.len() - 1]).is_err());
        if let Ok(read) = BootMark::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}
