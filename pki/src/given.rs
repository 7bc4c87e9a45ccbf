//! What operators bring from outside: a root of their own, its key, and what an offline root signed. Each is refused with the
//! reason, before anything depends on it.

use crate::csr::Request;
use crate::facts::{CertError, Facts, Name, ext, signed_by, usage};
use crate::issue::{IssuerCa, ROOT_NAME};
use crate::keys::{CertSigner, SubjectKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_types::{ClusterId, Millis};
use holdfast_wire::keys::SignError;
use std::time::Duration;

/// A root that is brought must live at least this long: half of its life passes before the next one is due.
pub const LEAST_ROOT_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);

/// How far the clock of whoever made a root may be ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// Why what was brought would not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GivenError {
    /// It cannot be read.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// Not ECDSA P-256.
    #[error("the certificate's key is not ECDSA P-256 with an uncompressed point; make a key of that kind")]
    Key,
    /// Not a CA.
    #[error("the certificate is not a CA certificate; make it with basicConstraints cA")]
    NotCa,
    /// No room for the issuer, or for another root above it.
    #[error(
        "the root's path length must be 2 at least, or not limited: an issuer stands between it and the leaves, and between \
         those two, for whoever trusts this root alone, the root that comes after it; make it with pathlen:2"
    )]
    PathLength,
    /// keyCertSign or cRLSign is missing.
    #[error("the certificate's key usage must be keyCertSign and cRLSign")]
    KeyUsage,
    /// It limits what its certificates are used for.
    #[error("the root has an extended key usage, which would bind all certificates under it; leave it out")]
    ExtendedKeyUsage,
    /// No subjectKeyIdentifier.
    #[error("the root has no subjectKeyIdentifier, by which OpenSSL and others find it; add one")]
    KeyIdentifier,
    /// A critical extension that verifiers do not understand.
    #[error("the root has a critical extension that verifiers here do not understand: {0}; leave it out")]
    Extension(String),
    /// Another name than every root of the cluster has.
    #[error("the root's subject must be CN={ROOT_NAME}, serialNumber={0}, and nothing else: it names the cluster")]
    Subject(String),
    /// Issued by somebody else.
    #[error(
        "the root is not self-signed: subject and issuer differ, or the signature is not its own; sign it with its own key"
    )]
    NotSelfSigned,
    /// Serial number 0.
    #[error("the certificate's serial number is 0; give it another")]
    ZeroSerial,
    /// Its validity has not begun.
    #[error(
        "the certificate is not valid before {0}; wait for it, or set the clock of whoever made it and make it anew"
    )]
    NotYetValid(Millis),
    /// It ends too early.
    #[error("the root ends at {0}; it must live for two years at least")]
    Short(Millis),
    /// The issuer is for another key than the one that was asked for.
    #[error("the issuer is not for the key in the request that was shown; sign that request")]
    OtherKey,
    /// The issuer is not signed by the root that was asked.
    #[error("the issuer is not signed by the root that was asked; sign it with that root's key")]
    OtherRoot,
    /// The issuer is not of the form that is signed here.
    #[error("the issuer is not as holdfast root sign makes it, so make it with that: {0}")]
    Issuer(String),
    /// The issuer is over.
    #[error("the issuer ended at {0}; sign the request anew")]
    Over(Millis),
    /// The issuer outlives its root.
    #[error("the issuer ends after its root; sign it for a shorter time")]
    Outlives,
}

/// Whether `der` would work as a root of `cluster` from `now` on.
pub fn check_root(der: &[u8], cluster: &ClusterId, now: Millis) -> Result<(), GivenError> {
    let facts = Facts::read(der)?;
    let key = SubjectKey::from_spki(&facts.spki).ok().filter(|k| k.sec1().is_some()).ok_or(GivenError::Key)?;
    if !facts.ca {
        return Err(GivenError::NotCa);
    }
    let expected = Name::Ca { common_name: ROOT_NAME.to_owned(), serial_number: cluster.hex() };
    if facts.subject != expected {
        return Err(GivenError::Subject(cluster.hex()));
    }
    if facts.issuer != expected || !signed_by(der, key.public()) {
        return Err(GivenError::NotSelfSigned);
    }
    if facts.serial.is_empty() {
        return Err(GivenError::ZeroSerial);
    }
    // GnuTLS counts a root that this one certifies, RFC 5280 does not (decision 0093).
    if facts.path_len.is_some_and(|room| room < 2) {
        return Err(GivenError::PathLength);
    }
    let wanted = usage::KEY_CERT_SIGN | usage::CRL_SIGN;
    if facts.key_usage & wanted != wanted {
        return Err(GivenError::KeyUsage);
    }
    if facts.extensions.contains_key(ext::EXT_KEY_USAGE) {
        return Err(GivenError::ExtendedKeyUsage);
    }
    if facts.subject_key_id.is_empty() {
        return Err(GivenError::KeyIdentifier);
    }
    let known = [ext::BASIC_CONSTRAINTS, ext::KEY_USAGE];
    if let Some((id, _)) = facts.extensions.iter().find(|(id, critical)| **critical && !known.contains(&id.as_str())) {
        return Err(GivenError::Extension(id.clone()));
    }
    // A root that was made a moment ago, by a clock that is ahead of this one: it is used once its time has come.
    if facts.not_before > now.plus(AHEAD) {
        return Err(GivenError::NotYetValid(facts.not_before));
    }
    if facts.not_after < now.plus(LEAST_ROOT_LIFE) {
        return Err(GivenError::Short(facts.not_after));
    }
    Ok(())
}

/// The identifier by which other programs find a certificate's key.
pub fn key_id(der: &[u8]) -> Option<Vec<u8>> {
    Facts::read(der).ok().map(|f| f.subject_key_id).filter(|id| !id.is_empty())
}

/// End of a certificate's validity.
pub fn not_after(der: &[u8]) -> Result<Millis, CertError> {
    Facts::read(der).map(|f| f.not_after)
}

/// Whether an offline root signed what it was asked for: the end of the issuer's validity.
pub fn check_issuer(issuer: &[u8], root: &[u8], csr: &[u8], now: Millis) -> Result<Millis, GivenError> {
    let (facts, above) = (Facts::read(issuer)?, Facts::read(root)?);
    let asked = Request::parse(csr).map_err(|e| GivenError::Issuer(e.to_string()))?;
    if facts.spki != asked.spki_der() {
        return Err(GivenError::OtherKey);
    }
    let key = SubjectKey::from_spki(&above.spki).map_err(|_| GivenError::Key)?;
    if facts.issuer != above.subject
        || facts.authority_key_id != above.subject_key_id
        || !signed_by(issuer, key.public())
    {
        return Err(GivenError::OtherRoot);
    }
    let point = asked.key().sec1().ok_or(GivenError::Key)?.to_vec();
    IssuerCa::open(issuer, Known(point)).map_err(|e| GivenError::Issuer(e.to_string()))?;
    if facts.not_before > now {
        return Err(GivenError::NotYetValid(facts.not_before));
    }
    if facts.not_after <= now {
        return Err(GivenError::Over(facts.not_after));
    }
    if facts.not_after > above.not_after {
        return Err(GivenError::Outlives);
    }
    Ok(facts.not_after)
}

/// A public key alone, where only the certificate is looked at.
struct Known(Vec<u8>);
impl CertSigner for Known {
    fn sec1(&self) -> Vec<u8> {
        self.0.clone()
    }
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
        Err(SignError("there is no private key here".to_owned()))
    }
}

/// The public point of a P-256 key in PKCS#8, if it is one.
pub fn p256_of_pkcs8(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).ok()?;
    Some(pair.public_key().as_ref().to_vec())
}
