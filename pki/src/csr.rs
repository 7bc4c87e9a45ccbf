//! Certificate requests (PKCS #10, RFC 2986): a public key and the proof that the sender holds its private half.
//!
//! Names, extensions and everything else in a request are ignored: every name is written by the vault.

use crate::issue::IssueError;
use crate::keys::{CertSigner, SubjectKey};
use holdfast_types::Digest;
use holdfast_wire::keys::{ALG_ED25519, verify};
use x509_parser::asn1_rs::{BitString, Oid, Sequence, ToDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;

/// Longest accepted request, in bytes: looked at before anything is parsed.
pub const MAX_CSR: usize = 8 << 10;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR`].
    #[error("the certificate request has {0} bytes, at most {MAX_CSR} are allowed")]
    TooLong(usize),
    /// Not a DER PKCS #10 request.
    #[error("not a certificate request in DER (PKCS #10)")]
    Malformed,
    /// Bytes after the request.
    #[error("bytes follow the certificate request")]
    TrailingBytes,
    /// RSA, another curve, a compressed point.
    #[error("{}; make a new key of that kind", crate::keys::WeakKey)]
    WeakKey,
    /// The signature algorithm is not the one of the key.
    #[error("the request is not signed with ECDSA P-256 and SHA-256, or Ed25519")]
    SignatureAlgorithm,
    /// The request's own signature does not verify.
    #[error("the request is not signed by the key it asks for")]
    BadSignature,
}

/// A request whose sender has proved possession of the key. Made only by [`Request::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    key: SubjectKey,
}
impl Request {
    /// Checks, cheapest first: size, form, key type, signature algorithm, signature.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR {
            return Err(CsrError::TooLong(der.len()));
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::TrailingBytes);
        }
        let info = &csr.certification_request_info;
        let key = SubjectKey::from_spki(info.subject_pki.raw).map_err(|_| CsrError::WeakKey)?;
        let (oid, algorithm) = signature_algorithm(&key);
        if csr.signature_algorithm.algorithm != oid {
            return Err(CsrError::SignatureAlgorithm);
        }
        if canonical(info.raw, algorithm, &csr.signature_value.data).as_deref() != Some(der) {
            return Err(CsrError::Malformed);
        }
        if !verify(key.public(), info.raw, &csr.signature_value.data) {
            return Err(CsrError::BadSignature);
        }
        Ok(Self { key })
    }
    /// The key whose possession was proved.
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }
    /// The DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        self.key.spki_der()
    }
    /// `H(SubjectPublicKeyInfo)`.
    pub fn spki_sha256(&self) -> Digest {
        self.key.spki_sha256()
    }
}

/// A request for the key of `signer`, which proves possession of it. It asks for no name.
pub fn request(signer: &dyn CertSigner) -> Result<Vec<u8>, IssueError> {
    crate::encode::request(&SubjectKey::from_sec1(&signer.sec1())?, signer)
}

/// The one signature algorithm of this kind of key, and its DER AlgorithmIdentifier without parameters (RFC 5758,
/// section 3.2; RFC 8410, section 3).
fn signature_algorithm(key: &SubjectKey) -> (Oid<'static>, &'static [u8]) {
    if key.public().alg == ALG_ED25519 {
        (OID_SIG_ED25519, &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70])
    } else {
        (OID_SIG_ECDSA_WITH_SHA256, &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])
    }
}

/// The DER of a request made of these parts. What lies outside the signed part has one spelling only, though the parser
/// takes several: a request, whose hash is in the join proof, cannot be respelt.
fn canonical(info: &[u8], algorithm: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let signature = BitString::new(0, signature).to_der_vec().ok()?;
    Sequence::new([info, algorithm, &signature].concat().into()).to_der_vec().ok()
}
