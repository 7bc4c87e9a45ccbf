//! The private key of a TLS identity: ECDSA P-256, kept in memory that is wiped.
//!
//! Never prints, never clones, never leaves but as PKCS #8 for its own key store.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_pki::keys::SubjectKey;
use holdfast_types::Digest;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The source of entropy or the library failed.
    #[error("could not make a P-256 key")]
    Generate,
    /// The bytes are none.
    #[error("not a P-256 private key in PKCS #8")]
    Malformed,
    /// Signing failed.
    #[error("could not sign with the identity's key")]
    Sign,
}

/// A P-256 key pair.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    public: SubjectKey,
}

impl PrivateKey {
    /// A new key from the system's entropy.
    pub fn generate() -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Generate)?;
        Self::from_pkcs8(document.as_ref())
    }
    /// From PKCS #8 DER; the caller wipes its own copy.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|_| KeyError::Malformed)?;
        let public = SubjectKey::from_sec1(pair.public_key().as_ref()).map_err(|_| KeyError::Malformed)?;
        Ok(Self { pkcs8: Zeroizing::new(der.to_vec()), pair, public })
    }
    /// PKCS #8 DER, for the key store.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        self.public.spki_der()
    }
    /// `H(SubjectPublicKeyInfo)`: the registry's pin.
    pub fn spki_sha256(&self) -> Digest {
        self.public.spki_sha256()
    }
    /// An ASN.1 DER ECDSA signature over SHA-256 of `msg`.
    pub fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), msg).map_err(|_| KeyError::Sign)?;
        Ok(signature.as_ref().to_vec())
    }
    /// A PKCS #10 request (RFC 2986): the public key and the proof that we hold its private half. It names nothing.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(self).map_err(|_| KeyError::Sign)?.der().to_vec())
    }
    pub(crate) fn tls_signer(&self) -> Result<Arc<dyn SigningKey>, KeyError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|_| KeyError::Malformed)
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        PrivateKey::sign(self, msg).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.spki_sha256())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_pki::csr::Request;

    #[test]
    fn a_request_proves_possession_of_its_key() {
        let key = PrivateKey::generate().unwrap();
        let request = Request::parse(&key.csr().unwrap()).unwrap();
        assert_eq!(request.spki_sha256(), key.spki_sha256());
        assert_eq!(request.spki_der(), key.spki_der());
    }

    #[test]
    fn a_key_survives_its_own_encoding_and_shows_nothing() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.spki_sha256(), key.spki_sha256());
        assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.spki_sha256()));
        assert_eq!(PrivateKey::from_pkcs8(b"no key").unwrap_err(), KeyError::Malformed);
    }
}
