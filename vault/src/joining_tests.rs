//! The files of a join that is under way: kept, private, stored as they always were, and never half believed.

use super::*;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_join_that_is_begun_goes_on_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!is_under_way(dir.path()));
    let joining = dir.path().join(DIR);
    let (first, again) = (Keys::of(&joining).unwrap(), Keys::of(&joining).unwrap());
    assert!(is_under_way(dir.path()));
    assert_eq!(first.tls.spki_sha256(), again.tls.spki_sha256());
    assert_eq!(first.kem.expose(), again.kem.expose());
    let mode = std::fs::metadata(joining.join("keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_join_whose_keys_were_damaged_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(Keys::of(dir.path()).unwrap());
    let path = dir.path().join("keys");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Keys::of(dir.path()).err().unwrap().code, "join-lost");
}

#[test]
fn the_others_are_known_by_number_and_address() {
    let dir = tempfile::tempdir().unwrap();
    assert!(known_peers(dir.path()).unwrap().is_empty());
    std::fs::write(dir.path().join(PEERS), "1 10.0.0.1:7402\n3 [::1]:7402\nx y\n").unwrap();
    let known = known_peers(dir.path()).unwrap();
    assert_eq!(known.get(&VoterId(3)).map(String::as_str), Some("[::1]:7402"));
    assert_eq!(known.len(), 2);
}

#[test]
fn what_a_voter_that_waits_must_know_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert!(read::<Waits>(&path).unwrap().is_none());
    let waits = Waits { anchor: vec![1; 32], id: "v-1".to_owned(), join_addrs: vec!["a:1".to_owned()] };
    waits.store(dir.path()).unwrap();
    assert_eq!(Waits::load(dir.path()).unwrap().unwrap().id, "v-1");
}

/// A value as it is stored, and what it was: `HOLDFAST_BLESS=1` writes the golden file anew.
fn golden(name: &str, written: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let hex: String = written.iter().map(|b| format!("{b:02x}")).collect();
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        std::fs::write(&path, format!("{hex}\n")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap().trim(), hex, "{name} is stored in another form than before");
}

#[test]
fn keys_and_answers_of_a_join_are_stored_as_they_always_were() {
    let keys = StoredKeys { tls: Zeroizing::new(vec![0x30; 5]), kem: Zeroizing::new([7; 32]) };
    golden("joining-keys.hex", &postcard::to_stdvec(&keys).unwrap());
    let join_addrs = vec!["10.0.0.1:7400".to_owned(), "[::1]:7400".to_owned()];
    let waits = Waits { anchor: vec![1; 32], id: "v-0102".to_owned(), join_addrs };
    golden("joining-waits.hex", &postcard::to_stdvec(&waits).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_kept_of_a_join_comes_back_and_never_with_bytes_left_over(
        anchor in any::<[u8; 32]>(), id in ".{0,40}", join_addrs in proptest::collection::vec(".{0,40}", 0..4),
        more in proptest::collection::vec(any::<u8>(), 1..4), noise in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let waits = Waits { anchor: anchor.to_vec(), id, join_addrs };
        waits.store(dir.path()).unwrap();
        let read = Waits::load(dir.path()).unwrap().unwrap();
        prop_assert_eq!(&read.anchor, &waits.anchor);
        prop_assert_eq!(&read.id, &waits.id);
        prop_assert_eq!(&read.join_addrs, &waits.join_addrs);
        let path = Waits::path(dir.path());
        let written = std::fs::read(&path).unwrap();
        std::fs::write(&path, [written.as_slice(), &more].concat()).unwrap();
        prop_assert!(Waits::load(dir.path()).is_err());
        std::fs::write(&path, &written[..written.len() - 1]).unwrap();
        prop_assert!(Waits::load(dir.path()).is_err());
        // Bytes from nowhere are refused, or read without a panic.
        std::fs::write(&path, noise).unwrap();
        drop(Waits::load(dir.path()));
    }
}
