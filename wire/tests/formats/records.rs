//! Records: one key, one place, one plaintext.

use crate::samples::*;
use holdfast_types::ClusterId;
use holdfast_wire::record::{MAX_PLAINTEXT, OVERHEAD, Place, RecordError, RecordKey, open, seal};
use proptest::prelude::*;

#[test]
fn a_record_opens_in_its_own_place_alone() {
    let r = record();
    assert_eq!(open(RECORD_KEY, &CLUSTER, &PLACE, &r).unwrap().expose(), PLAINTEXT);
    assert_eq!(r.len(), PLAINTEXT.len() + OVERHEAD);
    for place in [
        Place::Record { purpose: "ca", path: "shop/db-password", rev: 3 },
        Place::Record { purpose: "secret", path: "shop/api-key", rev: 3 },
        Place::Record { purpose: "secret", path: "shop/db-password", rev: 2 },
        Place::Record { purpose: "secretshop", path: "/db-password", rev: 3 },
    ] {
        assert_eq!(open(RECORD_KEY, &CLUSTER, &place, &r).unwrap_err(), RecordError::Open, "{place:?}");
    }
    let on_disk = Place::Disk { voter: 1, keyspace: 0, index: 7, raft_term: 2 };
    assert_eq!(open(RECORD_KEY, &CLUSTER, &on_disk, &r).unwrap_err(), RecordError::Unknown);
    let r = record_of(RECORD_KEY, &on_disk, PLAINTEXT);
    assert_eq!(open(RECORD_KEY, &CLUSTER, &on_disk, &r).unwrap().expose(), PLAINTEXT);
    for (voter, keyspace, index, raft_term) in [(2, 0, 7, 2), (1, 1, 7, 2), (1, 0, 8, 2), (1, 0, 7, 3)] {
        let place = Place::Disk { voter, keyspace, index, raft_term };
        assert_eq!(open(RECORD_KEY, &CLUSTER, &place, &r).unwrap_err(), RecordError::Open, "{place:?}");
    }
    assert_eq!(open(RECORD_KEY, &ClusterId([8; 32]), &on_disk, &r).unwrap_err(), RecordError::Open);
}

#[test]
fn a_record_of_another_term_is_named_and_a_rewritten_term_does_not_help() {
    let next = RecordKey { term: TERM + 1, ..RECORD_KEY };
    assert_eq!(
        open(next, &CLUSTER, &PLACE, &record()).unwrap_err(),
        RecordError::OtherTerm { found: TERM, wanted: TERM + 1 }
    );
    let mut r = record();
    r[8] += 1;
    assert_eq!(open(next, &CLUSTER, &PLACE, &r).unwrap_err(), RecordError::Open);
    let wrong = RecordKey { key: &[7; 32], ..RECORD_KEY };
    assert_eq!(open(wrong, &CLUSTER, &PLACE, &record()).unwrap_err(), RecordError::Open);
}

#[test]
fn f5_a_cloned_generator_does_not_repeat_a_salt() {
    let salt = |r: Vec<u8>| r[9..41].to_vec();
    let first = salt(record());
    assert_eq!(first, salt(record()), "the same everything is the same");
    assert_ne!(first, salt(record_of(RECORD_KEY, &PLACE, b"attack at dusk")));
    assert_ne!(first, salt(record_of(RECORD_KEY, &Place::Record { purpose: "secret", path: "x", rev: 3 }, PLAINTEXT)));
    assert_ne!(first, salt(record_of(RecordKey { term: 9, ..RECORD_KEY }, &PLACE, PLAINTEXT)));
}

#[test]
fn f6_no_ciphertext_opens_under_two_keys() {
    let other = RecordKey { key: &[7; 32], ..RECORD_KEY };
    let (ours, theirs) = (record(), record_of(other, &PLACE, b"attack at dusk"));
    // Salt and commitment of one, salt, commitment or ciphertext of the other.
    for (from, to) in [(9, 41), (41, 73), (9, 73), (73, ours.len())] {
        let mut mixed = ours.clone();
        mixed[from..to].copy_from_slice(&theirs[from..to]);
        for key in [RECORD_KEY, other] {
            assert_eq!(open(key, &CLUSTER, &PLACE, &mixed).unwrap_err(), RecordError::Open, "{from}..{to}");
        }
    }
}

#[test]
fn every_single_bit_of_a_record_counts_and_nothing_may_be_cut_or_added() {
    let good = record();
    for bit in 0..good.len() * 8 {
        let mut r = good.clone();
        r[bit / 8] ^= 1 << (bit % 8);
        assert!(open(RECORD_KEY, &CLUSTER, &PLACE, &r).is_err(), "bit {bit}");
    }
    for end in 0..good.len() {
        assert!(open(RECORD_KEY, &CLUSTER, &PLACE, &good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(open(RECORD_KEY, &CLUSTER, &PLACE, &[good.as_slice(), &[0]].concat()).unwrap_err(), RecordError::Open);
    assert_eq!(open(RECORD_KEY, &CLUSTER, &PLACE, &good[..8]).unwrap_err(), RecordError::Malformed);
}

#[test]
fn an_over_long_plaintext_is_refused_on_both_sides() {
    let long = vec![0; MAX_PLAINTEXT + 1];
    assert_eq!(seal(RECORD_KEY, &CLUSTER, &PLACE, &long, [1; 32], &hedge()).unwrap_err(), RecordError::TooLong);
    let mut r = record();
    r.resize(OVERHEAD + MAX_PLAINTEXT + 1, 0);
    assert_eq!(open(RECORD_KEY, &CLUSTER, &PLACE, &r).unwrap_err(), RecordError::Malformed);
}

proptest! {
    #[test]
    fn any_plaintext_and_place_round_trip(pt in prop::collection::vec(any::<u8>(), 0..3000), path in ".*", rev in any::<u64>(), random in any::<[u8; 32]>()) {
        let place = Place::Record { purpose: "secret", path: &path, rev };
        let r = seal(RECORD_KEY, &CLUSTER, &place, &pt, random, &hedge()).unwrap();
        let opened = open(RECORD_KEY, &CLUSTER, &place, &r).unwrap();
        prop_assert_eq!(opened.expose(), pt.as_slice());
    }
    #[test]
    fn no_bytes_at_all_make_it_panic(b in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open(RECORD_KEY, &CLUSTER, &PLACE, &b).is_err());
    }
}
