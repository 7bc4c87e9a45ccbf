//! The files of a join that is under way: kept, private, stored as they always were, and never half believed.

use super::*;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use std::os::unix::fs::PermissionsExt as _;

/// A join whose keys lie in the state directory: the socket would be in a directory that is not there.
fn place(dir: &Path) -> Place {
    Place::of(&dir.join("state"), Path::new("/nowhere/s"))
}

#[test]
fn a_join_that_is_begun_goes_on_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    assert!(!place.is_under_way());
    let (first, again) = (Keys::of(&place).unwrap(), Keys::of(&place).unwrap());
    assert!(place.is_under_way());
    assert_eq!(first.tls.spki_sha256(), again.tls.spki_sha256());
    assert_eq!(first.kem.expose(), again.kem.expose());
    let mode = std::fs::metadata(&place.keys).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_join_whose_keys_were_damaged_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    drop(Keys::of(&place).unwrap());
    let mut bytes = std::fs::read(&place.keys).unwrap();
    bytes.push(0);
    std::fs::write(&place.keys, &bytes).unwrap();
    assert_eq!(Keys::of(&place).err().unwrap().code, "join-lost");
}

#[test]
fn whoever_waits_and_has_lost_its_keys_makes_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    drop(Keys::of(&place).unwrap());
    Waits { anchor: vec![1; 32], id: "v-1".to_owned(), join_addrs: vec![] }.store(&place.dir).unwrap();
    std::fs::remove_file(&place.keys).unwrap();
    assert_eq!(Keys::of(&place).err().unwrap().code, "join-lost");
}

#[test]
fn keys_of_a_join_lie_beside_a_socket_that_is_in_memory_and_are_wiped_when_it_is_over() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let state = tempfile::tempdir().unwrap();
    let place = Place::of(state.path(), &memory.path().join("vault.sock"));
    assert_eq!(place.keys, memory.path().join("vault.sock.joining"));
    let first = Keys::of(&place).unwrap().tls.spki_sha256();
    assert!(!state.path().join(DIR).join("keys").exists());
    // A state directory that was emptied begins anew, with other keys.
    std::fs::remove_dir_all(state.path().join(DIR)).unwrap();
    assert!(!place.is_under_way());
    assert_ne!(Keys::of(&place).unwrap().tls.spki_sha256(), first);
    let held = memory.path().join("held");
    std::fs::hard_link(&place.keys, &held).unwrap();
    place.clean().unwrap();
    assert!(!place.keys.exists() && !place.is_under_way());
    assert!(std::fs::read(held).unwrap().iter().all(|b| *b == 0), "the bytes are there still");
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
