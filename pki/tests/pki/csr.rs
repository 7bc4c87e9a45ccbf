//! Requests: only a proved P-256 or Ed25519 key comes out, whatever goes in.

use crate::world::{DAY, World, id, parse};
use holdfast_pki::csr::{CsrError, MAX_CSR, Request};
use proptest::prelude::*;

const GREEDY: &[u8] = include_bytes!("../data/greedy.der");

#[test]
fn a_request_yields_the_key_it_proves() {
    let key = rcgen::KeyPair::generate().unwrap();
    let der = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = Request::parse(der.der()).unwrap();
    assert_eq!(request.spki_der(), rcgen::PublicKeyData::subject_public_key_info(&key));
    assert!(Request::parse(include_bytes!("../data/ed25519.der")).unwrap().key().sec1().is_none());
}

#[test]
fn bad_requests_are_refused_each_for_its_reason() {
    let mut bad_signature = GREEDY.to_vec();
    *bad_signature.last_mut().unwrap() ^= 1;
    let mut another_subject = GREEDY.to_vec();
    let cn = another_subject.windows(3).position(|w| w == b"\x0c\x01x").unwrap() + 2;
    another_subject[cn] = b'y';
    let trailing = [GREEDY, b"\0"].concat();
    let table: &[(&str, &[u8], CsrError)] = &[
        ("rsa 1024", include_bytes!("../data/rsa1024.der"), CsrError::WeakKey),
        ("rsa 2048", include_bytes!("../data/rsa2048.der"), CsrError::WeakKey),
        ("p-224", include_bytes!("../data/p224.der"), CsrError::WeakKey),
        ("p-384", include_bytes!("../data/p384.der"), CsrError::WeakKey),
        ("secp256k1", include_bytes!("../data/secp256k1.der"), CsrError::WeakKey),
        ("compressed point", include_bytes!("../data/compressed.der"), CsrError::WeakKey),
        ("explicit parameters", include_bytes!("../data/explicit.der"), CsrError::WeakKey),
        ("sha-384", include_bytes!("../data/sha384.der"), CsrError::SignatureAlgorithm),
        ("bad signature", &bad_signature, CsrError::BadSignature),
        ("changed after signing", &another_subject, CsrError::BadSignature),
        ("trailing byte", &trailing, CsrError::TrailingBytes),
        ("cut short", &GREEDY[..GREEDY.len() - 1], CsrError::Malformed),
        ("empty", b"", CsrError::Malformed),
        ("too long", &[0x30; MAX_CSR + 1], CsrError::TooLong(MAX_CSR + 1)),
    ];
    for (what, der, expected) in table {
        assert_eq!(Request::parse(der).as_ref(), Err(expected), "{what}");
    }
}

#[test]
fn a_request_for_ca_rights_and_other_names_gets_neither() {
    let request = Request::parse(GREEDY).unwrap();
    let leaf = World::new().leaf_for(request.key(), &id("node/n1"), DAY);
    let cert = parse(&leaf.der);
    assert!(!cert.is_ca());
    assert!(!cert.key_usage().unwrap().unwrap().value.key_cert_sign());
    let san = cert.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(san.general_names, [x509_parser::extensions::GeneralName::URI("spiffe://prod.example.org/node/n1")]);
    assert_eq!(leaf.spki_sha256, request.spki_sha256());
}

/// Also the bytes that the signature does not cover: the parser takes several spellings of them.
#[test]
fn a_request_with_one_changed_byte_is_refused() {
    for at in 0..GREEDY.len() {
        for flip in [1, 2, 0x10, 0x40, 0x80, 0xff] {
            let mut der = GREEDY.to_vec();
            der[at] ^= flip;
            assert!(Request::parse(&der).is_err(), "byte {at} xor {flip:#x}");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Request::parse(&bytes).is_err());
    }
}
