//! Statements: the signed bytes and nothing else, in their one encoding.

use crate::samples::{CLUSTER, signer, statement, voucher};
use holdfast_wire::documents::ALL;
use holdfast_wire::keys::{ALG_P256, StatementSigner as _};
use holdfast_wire::statement::{Document, MAX_SIGS, StatementError, sign, sign_payload, verify};
use holdfast_wire::strict::StrictError;
use holdfast_wire::v1;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeSet;

fn keys() -> [v1::PublicKey; 2] {
    [signer(1).public(), signer(2).public()]
}

#[test]
fn a_statement_comes_back_as_it_was_signed() {
    let v = verify::<v1::Voucher>(&statement(), &keys(), 2).unwrap();
    assert_eq!((v.doc, v.signers.len()), (voucher(), 2));
}

#[test]
fn the_threshold_counts_distinct_keys_that_are_listed() {
    let twice = sign(&voucher(), &[&signer(1), &signer(1), &signer(9)]).unwrap();
    assert_eq!(
        verify::<v1::Voucher>(&twice, &keys(), 2).unwrap_err(),
        StatementError::Threshold { good: 1, needed: 2 }
    );
    let listed_twice = [keys()[0].clone(), keys()[0].clone()];
    assert_eq!(
        verify::<v1::Voucher>(&twice, &listed_twice, 2).unwrap_err(),
        StatementError::Threshold { good: 1, needed: 2 }
    );
    assert_eq!(
        verify::<v1::Voucher>(&statement(), &keys(), 0).unwrap_err(),
        StatementError::Threshold { good: 2, needed: 1 }
    );
    assert!(verify::<v1::Voucher>(&statement(), &[], 1).is_err());
}

#[test]
fn e10_the_algorithm_is_the_key_sets_not_the_messages() {
    let claimed = v1::PublicKey { alg: ALG_P256, ..keys()[0].clone() };
    assert_eq!(verify::<v1::Voucher>(&statement(), &[claimed], 1).unwrap_err(), StatementError::BadSignature);
    for alg in [0, 3, 4, 99] {
        let unknown = v1::PublicKey { alg, ..keys()[0].clone() };
        assert!(verify::<v1::Voucher>(&statement(), &[unknown], 1).is_err());
    }
}

#[test]
fn one_document_is_never_taken_for_another() {
    assert!(matches!(verify::<v1::Spec>(&statement(), &keys(), 1), Err(StatementError::Type { .. })));
    let mut renamed = statement();
    renamed.r#type = v1::Spec::TYPE.into();
    assert_eq!(verify::<v1::Spec>(&renamed, &keys(), 1).unwrap_err(), StatementError::BadSignature);
}

#[test]
fn too_many_signatures_are_not_even_looked_at() {
    let mut st = statement();
    st.sigs = vec![st.sigs[0].clone(); MAX_SIGS + 1];
    assert_eq!(verify::<v1::Voucher>(&st, &keys(), 1).unwrap_err(), StatementError::TooManySignatures);
}

#[test]
fn every_single_bit_of_an_encoded_statement_counts() {
    let bytes = sign(&voucher(), &[&signer(1)]).unwrap().encode_to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut b = bytes.clone();
        b[bit / 8] ^= 1 << (bit % 8);
        let believed =
            v1::Statement::decode(b.as_slice()).is_ok_and(|st| verify::<v1::Voucher>(&st, &keys(), 1).is_ok());
        assert!(!believed, "bit {bit}");
    }
    for end in 0..bytes.len() {
        let believed =
            v1::Statement::decode(&bytes[..end]).is_ok_and(|st| verify::<v1::Voucher>(&st, &keys(), 1).is_ok());
        assert!(!believed, "cut at {end}");
    }
}

/// Signed by the right key, but not in the one encoding: refused all the same.
fn strict<T: Document>(payload: Vec<u8>) -> StrictError {
    let st = sign_payload::<T>(payload, &[&signer(1)]).unwrap();
    match verify::<T>(&st, &keys(), 1) {
        Err(StatementError::Payload(e)) => e,
        Err(other) => panic!("{}: {other}", T::TYPE),
        Ok(_) => panic!("{}: believed", T::TYPE),
    }
}

fn a_payload_has_one_encoding<T: Document + Clone + PartialEq>(doc: &T) -> &'static str {
    let good = doc.encode_to_vec();
    let st = sign(doc, &[&signer(1)]).unwrap();
    assert!(verify::<T>(&st, &keys(), 1).unwrap().doc == *doc);
    let with = |tail: &[u8]| [good.as_slice(), tail].concat();
    // Field 2047, unknown to every document: as a number, as bytes, and as an empty group.
    assert_eq!(strict::<T>(with(&[0xf8, 0x7f, 1])), StrictError::NotCanonical, "{}", T::TYPE);
    assert_eq!(strict::<T>(with(&[0xfa, 0x7f, 1, 0])), StrictError::NotCanonical, "{}", T::TYPE);
    assert_eq!(strict::<T>(with(&[0xfb, 0x7f, 0xfc, 0x7f])), StrictError::NotCanonical, "{}", T::TYPE);
    // The first field once more, everything once more.
    let first = 2 + if good[0] == 0x0a { usize::from(good[1]) } else { 0 };
    assert_eq!(strict::<T>(with(&good[..first])), StrictError::NotCanonical, "{}", T::TYPE);
    assert_eq!(strict::<T>(with(&good)), StrictError::NotCanonical, "{}", T::TYPE);
    // The first length or number in two bytes where one will do.
    let overlong = [&[good[0], good[1] | 0x80, 0], &good[2..]].concat();
    assert_eq!(strict::<T>(overlong), StrictError::NotCanonical, "{}", T::TYPE);
    // A field that is set to its default, which proto3 does not write.
    assert_eq!(strict::<T>(vec![good[0], 0]), StrictError::NotCanonical, "{}", T::TYPE);
    // Trailing bytes, a cut, too much.
    assert_eq!(strict::<T>(with(&[0])), StrictError::Malformed, "{}", T::TYPE);
    assert_eq!(strict::<T>(good[..good.len() - 1].to_vec()), StrictError::Malformed, "{}", T::TYPE);
    assert_eq!(strict::<T>(vec![0; T::MAX + 1]), StrictError::TooLong { len: T::MAX + 1, max: T::MAX }, "{}", T::TYPE);
    T::TYPE
}

#[test]
fn every_document_has_exactly_one_encoding() {
    // First field short and last field bytes or text, so that one byte less is always a cut.
    let id = CLUSTER.0.to_vec();
    macro_rules! documents {
        ($($doc:expr),* $(,)?) => { [$(a_payload_has_one_encoding(&$doc)),*] };
    }
    let done = documents![
        v1::Charter { version: 1, trust_domain: "a.example".into(), ..Default::default() },
        v1::Spec { cluster_id: id.clone(), namespace: "shop".into(), ..Default::default() },
        v1::Voucher { cluster_id: id.clone(), repository: "r".into(), ..Default::default() },
        v1::Mandate { cluster_id: id.clone(), mandate_id: "m".into(), ..Default::default() },
        v1::Command { cluster_id: id.clone(), command_id: vec![1; 16], ..Default::default() },
        v1::Bundle { cluster_id: id.clone(), intake_pk: vec![1; 32], ..Default::default() },
        v1::Status { cluster_id: id.clone(), bundle_sha256: vec![1; 32], ..Default::default() },
        v1::Revocations { cluster_id: id.clone(), denied_digests: vec![vec![1; 32]], ..Default::default() },
        v1::Grant { cluster_id: id.clone(), on_expiry: "stop".into(), ..Default::default() },
        v1::LeaseExt { cluster_id: id.clone(), node_id: "node-1".into(), ..Default::default() },
        v1::Revoke { cluster_id: id.clone(), reason: "drain".into(), ..Default::default() },
        v1::LogsRequest { cluster_id: id.clone(), reply_pk: vec![1; 32], ..Default::default() },
        v1::Login { cluster_id: id.clone(), csr_sha256: vec![1; 32], ..Default::default() },
        v1::Backup { cluster_id: id.clone(), sha256: vec![1; 32], ..Default::default() },
        v1::Reset { cluster_id: id, request_id: vec![1; 16], ..Default::default() },
    ];
    let all: BTreeSet<_> = ALL.iter().map(|(t, _)| *t).collect();
    assert_eq!(BTreeSet::from(done), all, "a document is missing here");
    assert_eq!(all.len(), ALL.len(), "two documents share a type");
}

proptest! {
    #[test]
    fn any_document_round_trips(repository in ".*", digest in prop::collection::vec(any::<u8>(), 0..64), at in any::<i64>()) {
        let doc = v1::Voucher { cluster_id: CLUSTER.0.to_vec(), repository, digest, issued_at_ms: at };
        let st = sign(&doc, &[&signer(1)]).unwrap();
        prop_assert_eq!(verify::<v1::Voucher>(&st, &keys(), 1).unwrap().doc, doc);
    }
    #[test]
    fn whatever_decodes_strictly_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(g) = holdfast_wire::strict::decode::<v1::Grant>(&bytes, 1 << 16) {
            prop_assert_eq!(g.encode_to_vec(), bytes);
        }
    }
}
