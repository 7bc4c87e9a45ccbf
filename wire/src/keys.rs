//! Statement keys: verifying by the algorithm of the *key set*, signing through a port.

use crate::v1;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, SigningKey, Verifier as _, VerifyingKey};
use holdfast_types::{Secret, kind, sha256};
use sha2::Sha512;

/// Ed25519 (RFC 8032); public keys are 32 bytes.
pub const ALG_ED25519: u32 = 1;
/// ECDSA P-256 with SHA-256; public keys are 65-byte SEC1 points, signatures ASN.1 DER.
pub const ALG_P256: u32 = 2;

/// The first 16 bytes of `H(public key)`: a hint for look-up, never an authority.
pub fn key_id(key: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    id.iter_mut().zip(sha256(&[key]).0).for_each(|(d, s)| *d = s);
    id
}

/// True if `sig` is `key`'s signature over `msg`. Unknown algorithms and malformed keys verify nothing.
/// Ed25519 is checked strictly: no key and no `R` of small order, and `R` and `s` in their canonical encoding.
pub fn verify(key: &v1::PublicKey, msg: &[u8], sig: &[u8]) -> bool {
    match key.alg {
        ALG_ED25519 => verify_ed25519(&key.key, msg, sig),
        ALG_P256 => {
            use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
            key.key.len() == 65 && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.key).verify(msg, sig).is_ok()
        }
        _ => false,
    }
}

/// `y` of the points of small order, in every encoding that has 255 bits: 0, 1, -1, the two of order 8, and 0 and 1 with the
/// prime added. The sign of `x` is the bit above them.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    ends(0x01, 0x00, 0x00),
    ends(0xec, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
];

const fn ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut y = [between; 32];
    let [f, .., l] = &mut y;
    *f = first;
    *l = last;
    y
}

/// True if these bytes encode a point of small order, in whatever way.
fn has_small_order(point: &[u8; 32]) -> bool {
    let mut y = *point;
    let [.., last] = &mut y;
    *last &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// LAW: what `VerifyingKey::verify_strict` refuses is refused, and nothing else
/// (`a_signature_counts_exactly_where_strict_verification_accepts_it`).
///
/// The strict one decompresses `R` to see whether its order is small. `verify` compares `R` with the canonical encoding of a
/// point, so that such an `R` is known by its bytes alone, without the square root.
fn verify_ed25519(key: &[u8], msg: &[u8], sig: &[u8]) -> bool {
    let (Ok(key), Ok(sig)) = (<[u8; 32]>::try_from(key), Signature::from_slice(sig)) else { return false };
    !has_small_order(sig.r_bytes())
        && VerifyingKey::from_bytes(&key).is_ok_and(|k| !k.is_weak() && k.verify(msg, &sig).is_ok())
}

/// The signing key could not sign (a token is gone, a session is lost).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign: {0}")]
pub struct SignError(pub String);

/// Whoever can sign a Statement: a key in memory, in a file, in a token.
pub trait StatementSigner {
    /// The public half, with its algorithm.
    fn public(&self) -> v1::PublicKey;
    /// Signs `msg` as the algorithm of [`StatementSigner::public`] says.
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An Ed25519 key in memory, made from a 32-byte seed (RFC 8032, section 5.1.5).
pub struct Ed25519Key {
    seed: Secret<kind::SigningSeed, 32>,
    public: VerifyingKey,
}
impl Ed25519Key {
    /// The key of `seed`.
    pub fn from_seed(seed: Secret<kind::SigningSeed, 32>) -> Self {
        let public = SigningKey::from_bytes(seed.expose()).verifying_key();
        Self { seed, public }
    }
    /// The raw public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public.to_bytes()
    }
    /// The seed, for sealing it at rest.
    pub fn seed(&self) -> &Secret<kind::SigningSeed, 32> {
        &self.seed
    }
}
impl StatementSigner for Ed25519Key {
    fn public(&self) -> v1::PublicKey {
        v1::PublicKey { alg: ALG_ED25519, key: self.public.as_bytes().to_vec() }
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        // The public half goes into the hash beside the message: LAW: it is the one that `from_seed` derived of this seed, and
        // nobody's argument (`a_signature_is_the_one_that_the_seed_alone_makes`). To sign with another one gives the key away.
        let secret = ExpandedSecretKey::from(self.seed.expose());
        Ok(raw_sign::<Sha512>(&secret, msg, &self.public).to_bytes().to_vec())
    }
}
