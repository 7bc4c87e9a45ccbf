//! Ed25519: what strict verification refuses, whoever made it and knows whichever secret.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::{EdwardsPoint, Scalar};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use holdfast_types::Secret;
use holdfast_wire::keys::{ALG_ED25519, Ed25519Key, StatementSigner as _, verify};
use holdfast_wire::v1;
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};

/// The order of the base point, little endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}
fn ours(key: &[u8; 32], msg: &[u8], sig: &[u8; 64]) -> bool {
    verify(&v1::PublicKey { alg: ALG_ED25519, key: key.to_vec() }, msg, sig)
}
fn strict(key: &[u8; 32], msg: &[u8], sig: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|k| k.verify_strict(msg, &Signature::from_bytes(sig)).is_ok())
}
/// Verification that does not look at small orders: shows that a forgery is one.
fn lenient(key: &[u8; 32], msg: &[u8], sig: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|k| k.verify(msg, &Signature::from_bytes(sig)).is_ok())
}

fn scalar(seed: u8) -> Scalar {
    Scalar::from_bytes_mod_order([seed; 32])
}
fn point(secret: Scalar, torsion: usize) -> [u8; 32] {
    (EdwardsPoint::mul_base(&secret) + EIGHT_TORSION[torsion]).compress().to_bytes()
}
/// The signature of whoever knows `a` and `r`, in whatever bytes `R` and the key are written.
fn forged(a: Scalar, key: &[u8; 32], r: Scalar, r_bytes: [u8; 32], msg: &[u8]) -> [u8; 64] {
    let hash = Sha512::new().chain_update(r_bytes).chain_update(key).chain_update(msg).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let mut sig = [0; 64];
    sig[..32].copy_from_slice(&r_bytes);
    sig[32..].copy_from_slice(&(r + k * a).to_bytes());
    sig
}
/// A message and a signature that lenient verification takes, among enough to find one in eight.
fn accepted(a: Scalar, key: &[u8; 32], r: Scalar, r_bytes: [u8; 32]) -> Option<([u8; 2], [u8; 64])> {
    (0..400_u16).map(u16::to_be_bytes).find_map(|msg| {
        let sig = forged(a, key, r, r_bytes, &msg);
        lenient(key, &msg, &sig).then_some((msg, sig))
    })
}
/// Every encoding of a point of small order, canonical or not.
fn small_order() -> Vec<[u8; 32]> {
    let mut all: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|t| t.compress().to_bytes()).collect();
    for first in [0xed, 0xee] {
        let mut over = [0xff; 32];
        (over[0], over[31]) = (first, 0x7f);
        all.push(over);
    }
    let other_signs: Vec<[u8; 32]> = all
        .iter()
        .map(|y| {
            let mut other = *y;
            other[31] ^= 0x80;
            other
        })
        .collect();
    all.extend(other_signs);
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn an_r_of_small_order_is_refused_where_its_signature_fits() {
    let a = scalar(5);
    // The sum of a key and a point of order eight: some message makes each of the eight fit as `R`.
    let key = point(a, 1);
    for torsion in 0..EIGHT_TORSION.len() {
        let (msg, sig) = accepted(a, &key, Scalar::ZERO, point(Scalar::ZERO, torsion)).unwrap();
        assert!(!strict(&key, &msg, &sig) && !ours(&key, &msg, &sig), "torsion {torsion}");
    }
}

#[test]
fn a_key_of_small_order_is_refused_in_every_encoding() {
    let (r, encodings) = (scalar(6), small_order());
    assert_eq!(encodings.len(), 14);
    let mut forgeries = 0;
    for key in &encodings {
        assert!(VerifyingKey::from_bytes(key).map_or(true, |k| k.is_weak()), "{key:?}");
        if let Some((msg, sig)) = accepted(Scalar::ZERO, key, r, point(r, 0)) {
            forgeries += 1;
            assert!(!strict(key, &msg, &sig) && !ours(key, &msg, &sig), "{key:?}");
        }
    }
    assert!(forgeries >= EIGHT_TORSION.len(), "{forgeries}");
}

#[test]
fn an_r_that_is_written_otherwise_than_it_comes_out_is_refused() {
    let a = scalar(5);
    for torsion in 0..EIGHT_TORSION.len() {
        let key = point(a, torsion);
        for r_bytes in small_order() {
            for msg in (0..4_u16).map(u16::to_be_bytes) {
                let sig = forged(a, &key, Scalar::ZERO, r_bytes, &msg);
                assert!(!strict(&key, &msg, &sig) && !ours(&key, &msg, &sig), "{torsion} {r_bytes:?}");
            }
        }
    }
}

#[test]
fn a_key_with_a_part_of_small_order_counts_where_strict_verification_takes_it() {
    let (a, r) = (scalar(5), scalar(6));
    for torsion in 0..EIGHT_TORSION.len() {
        let key = point(a, torsion);
        let (msg, sig) = accepted(a, &key, r, point(r, 0)).unwrap();
        assert!(strict(&key, &msg, &sig) && ours(&key, &msg, &sig), "torsion {torsion}");
    }
}

#[test]
fn an_s_that_is_not_below_the_order_is_refused() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (public, mut sig) = (key.verifying_key().to_bytes(), key.sign(b"m").to_bytes());
    assert!(ours(&public, b"m", &sig));
    let mut carry = 0_u16;
    for (s, order) in sig[32..].iter_mut().zip(unhex(ORDER)) {
        let sum = u16::from(*s) + u16::from(order) + carry;
        (*s, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let s = |sig: &[u8; 64]| Scalar::from_bytes_mod_order(sig[32..].try_into().unwrap());
    assert_eq!(s(&sig), s(&key.sign(b"m").to_bytes()));
    assert!(!strict(&public, b"m", &sig) && !ours(&public, b"m", &sig));
}

#[test]
fn the_first_vector_of_rfc_8032_comes_out() {
    let mut seed: [u8; 32] =
        unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").try_into().unwrap();
    let key = Ed25519Key::from_seed(Secret::take(&mut seed));
    let public = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!((key.public_bytes().to_vec(), key.public().key), (public.clone(), public));
    let sig = key.sign(b"").unwrap();
    assert_eq!(
        HEXLOWER.encode(&sig),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    );
    assert!(verify(&key.public(), b"", &sig));
    for wrong in [sig[..63].to_vec(), [sig.as_slice(), &[0]].concat(), Vec::new()] {
        assert!(!verify(&key.public(), b"", &wrong), "{} bytes", wrong.len());
    }
}

proptest! {
    #[test]
    fn a_signature_is_the_one_that_the_seed_alone_makes(seed in any::<[u8; 32]>(), msg in prop::collection::vec(any::<u8>(), 0..300)) {
        let theirs = SigningKey::from_bytes(&seed);
        let mut seed = seed;
        let key = Ed25519Key::from_seed(Secret::take(&mut seed));
        prop_assert_eq!(key.public_bytes(), theirs.verifying_key().to_bytes());
        prop_assert_eq!(key.sign(&msg).unwrap(), theirs.sign(&msg).to_bytes());
    }
    /// Honest ones, damaged ones, and those of a signer who puts points of small order wherever there is room.
    #[test]
    fn a_signature_counts_exactly_where_strict_verification_accepts_it(
        (a, r) in any::<(u8, u8)>(),
        (in_key, in_r) in (0..8_usize, 0..8_usize),
        flip in prop::option::of(0..(32 + 64) * 8_usize),
        msg in any::<[u8; 4]>(),
    ) {
        let (a, r) = (scalar(a), scalar(r));
        let mut key = point(a, in_key);
        let mut sig = forged(a, &key, r, point(r, in_r), &msg);
        if let Some(bit) = flip {
            let byte = if bit < 256 { &mut key[bit / 8] } else { &mut sig[bit / 8 - 32] };
            *byte ^= 1 << (bit % 8);
        }
        prop_assert_eq!(ours(&key, &msg, &sig), strict(&key, &msg, &sig));
    }
    #[test]
    fn random_bytes_are_judged_as_strictly(key in any::<[u8; 32]>(), head in any::<[u8; 32]>(), tail in any::<[u8; 32]>()) {
        let mut sig = [0; 64];
        sig[..32].copy_from_slice(&head);
        sig[32..].copy_from_slice(&tail);
        prop_assert_eq!(ours(&key, b"m", &sig), strict(&key, b"m", &sig));
    }
}
