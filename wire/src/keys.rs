//! Statement keys: verifying by the algorithm of the *key set*, signing through a port.

use crate::v1;
use ed25519_dalek::Signer as _;
use holdfast_types::{Secret, kind, sha256};

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
/// Ed25519 is checked strictly: no small-order keys, canonical encodings only.
pub fn verify(key: &v1::PublicKey, msg: &[u8], sig: &[u8]) -> bool {
    match key.alg {
        ALG_ED25519 => {
            let (Ok(k), Ok(s)) = (<[u8; 32]>::try_from(key.key.as_slice()), ed25519_dalek::Signature::from_slice(sig))
            else {
                return false;
            };
            ed25519_dalek::VerifyingKey::from_bytes(&k).is_ok_and(|k| k.verify_strict(msg, &s).is_ok())
        }
        ALG_P256 => {
            use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
            key.key.len() == 65 && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.key).verify(msg, sig).is_ok()
        }
        _ => false,
    }
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
    public: [u8; 32],
}
impl Ed25519Key {
    /// The key of `seed`.
    pub fn from_seed(seed: Secret<kind::SigningSeed, 32>) -> Self {
        let public = ed25519_dalek::SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes();
        Self { seed, public }
    }
    /// The raw public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public
    }
    /// The seed, for sealing it at rest.
    pub fn seed(&self) -> &Secret<kind::SigningSeed, 32> {
        &self.seed
    }
}
impl StatementSigner for Ed25519Key {
    fn public(&self) -> v1::PublicKey {
        v1::PublicKey { alg: ALG_ED25519, key: self.public.to_vec() }
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(ed25519_dalek::SigningKey::from_bytes(self.seed.expose()).sign(msg).to_bytes().to_vec())
    }
}
