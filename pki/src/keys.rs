//! Public keys as certificates carry them, and the port of whoever signs certificates.
//!
//! Two key types and one encoding of each: ECDSA P-256 (uncompressed point) and Ed25519. Never holds a private key.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};
use holdfast_types::{Digest, sha256};
use holdfast_wire::keys::{ALG_ED25519, ALG_P256, SignError, StatementSigner};
use holdfast_wire::v1;

/// SubjectPublicKeyInfo of a P-256 key up to the point (RFC 5480, section 2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// SubjectPublicKeyInfo of an Ed25519 key up to the key (RFC 8410, section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Whoever can sign certificates with ECDSA P-256 and SHA-256: a key in memory or in a token. May block.
pub trait CertSigner {
    /// The public key, an uncompressed SEC1 point (65 bytes).
    fn sec1(&self) -> Vec<u8>;
    /// An ASN.1 DER ECDSA signature over SHA-256 of `msg`.
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError>;
}
impl<T: CertSigner + ?Sized> CertSigner for &T {
    fn sec1(&self) -> Vec<u8> {
        (**self).sec1()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        (**self).sign(msg)
    }
}

/// Lets a root's key sign Bundles: the two uses cannot be confused, a Statement's bytes start with `DSSEv1`, a
/// certificate's with an ASN.1 SEQUENCE.
pub struct RootStatementSigner<'a>(pub &'a dyn CertSigner);
impl StatementSigner for RootStatementSigner<'_> {
    fn public(&self) -> v1::PublicKey {
        v1::PublicKey { alg: ALG_P256, key: self.0.sec1() }
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg)
    }
}

/// The key is none that we certify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key must be ECDSA P-256 (uncompressed) or Ed25519")]
pub struct WeakKey;

/// A well-formed public key that a certificate may bind to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKey {
    spki_der: Vec<u8>,
    public: v1::PublicKey,
}
impl SubjectKey {
    /// From a DER SubjectPublicKeyInfo. Says nothing about who holds the private half: see [`crate::csr::Request`].
    pub fn from_spki(der: &[u8]) -> Result<Self, WeakKey> {
        if let Some(point) = der.strip_prefix(&P256_SPKI)
            && point.len() == 65
            && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).is_ok()
        {
            return Ok(Self { spki_der: der.to_vec(), public: v1::PublicKey { alg: ALG_P256, key: point.to_vec() } });
        }
        if let Some(key) = der.strip_prefix(&ED25519_SPKI)
            && key.len() == 32
            && ParsedPublicKey::new(&ED25519, key).is_ok()
        {
            return Ok(Self { spki_der: der.to_vec(), public: v1::PublicKey { alg: ALG_ED25519, key: key.to_vec() } });
        }
        Err(WeakKey)
    }
    /// From an uncompressed P-256 point (65 bytes).
    pub fn from_sec1(point: &[u8]) -> Result<Self, WeakKey> {
        Self::from_spki(&[P256_SPKI.as_slice(), point].concat())
    }
    /// The DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }
    /// `H(SubjectPublicKeyInfo)`, the registry's pin.
    pub fn spki_sha256(&self) -> Digest {
        sha256(&[&self.spki_der])
    }
    /// The key as statements carry it.
    pub fn public(&self) -> &v1::PublicKey {
        &self.public
    }
    /// The uncompressed point, if this is a P-256 key.
    pub fn sec1(&self) -> Option<&[u8]> {
        (self.public.alg == ALG_P256).then_some(self.public.key.as_slice())
    }
    /// Key identifier: the left 160 bits of SHA-256 over the key's bits (RFC 7093, section 2, method 1).
    pub(crate) fn key_identifier(&self) -> Vec<u8> {
        sha256(&[&self.public.key]).0.into_iter().take(20).collect()
    }
}
impl rcgen::PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public.key
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        if self.public.alg == ALG_P256 { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_ED25519 }
    }
}
