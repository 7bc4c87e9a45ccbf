//! The credential slot: opens for its credential alone, and says what is missing or wrong.

use super::*;
use crate::disk::keys::DiskKey;
use crate::disk::testing::{CLUSTER, RECOVERY, VOTER, pk};

fn key(byte: u8) -> DiskKey {
    DiskKey::take(&mut [byte; 32])
}

fn slots(credential: [u8; 32]) -> Slots {
    let mut s = Slots::create(CLUSTER, VOTER, &key(9), 1, &pk(RECOVERY)).unwrap();
    s.seal_to(1, &key(9), Recipient::Credential { pk: pk(credential) }, &pk(credential)).unwrap();
    s
}

fn given(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(NAME), bytes).unwrap();
    dir
}

#[test]
fn the_credential_of_the_service_manager_opens_the_disk() {
    let dir = given(&[4; 32]);
    assert!(credential_key(dir.path()).unwrap().is_some());
    let mut s = Slots::decode(&slots([4; 32]).encode().unwrap()).unwrap();
    let keys = open_from(&s, Some(dir.path())).unwrap().unwrap();
    s.open(keys).unwrap();
    // While the disk key is being replaced, both generations.
    s.begin_rotation(&key(10), 1, &pk(RECOVERY)).unwrap();
    s.seal_to(2, &key(10), Recipient::Credential { pk: pk([4; 32]) }, &pk([4; 32])).unwrap();
    let keys = open_from(&s, Some(dir.path())).unwrap().unwrap();
    assert_eq!(s.open(keys).unwrap().newest(), 2);
}

#[test]
fn a_missing_wrong_or_malformed_credential_is_named() {
    let s = slots([4; 32]);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open_from(&s, None), Err(DiskError::NoCredential)));
    assert!(matches!(open_from(&s, Some(empty.path())), Err(DiskError::NoCredential)));
    let wrong = given(&[5; 32]);
    assert!(
        matches!(open_from(&s, Some(wrong.path())), Err(DiskError::BadCredential(why)) if why.contains("not the one"))
    );
    let short = given(&[4; 31]);
    assert!(
        matches!(open_from(&s, Some(short.path())), Err(DiskError::BadCredential(why)) if why.contains("32 bytes"))
    );
}

#[test]
fn without_a_credential_slot_no_credential_is_asked_for() {
    let s = Slots::create(CLUSTER, VOTER, &key(9), 1, &pk(RECOVERY)).unwrap();
    assert!(open_from(&s, None).unwrap().is_none());
    assert!(credential_key(tempfile::tempdir().unwrap().path()).unwrap().is_none());
}
