//! From intended [`Facts`] to signed DER, by rcgen. Decides nothing: `issue` compares the result with the intent.

use crate::facts::{Facts, Name, usage};
use crate::issue::IssueError;
use crate::keys::{CertSigner, SubjectKey};
use holdfast_wire::keys::SignError;
use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType, SigningKey,
};
use std::cell::RefCell;
use std::time::Duration;

/// X.520 serialNumber, 2.5.4.5.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A [`CertSigner`] as rcgen wants it; keeps the reason of a failure, for which rcgen has no room.
struct Signer<'a> {
    key: &'a SubjectKey,
    signer: &'a dyn CertSigner,
    failure: RefCell<Option<SignError>>,
}
impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.key.algorithm()
    }
}
impl SigningKey for Signer<'_> {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer.sign(msg).map_err(|e| {
            self.failure.replace(Some(e));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// Encodes `intent` for `key` and has `signer`, whose public key is `ca_key`, sign it.
pub(crate) fn sign(
    intent: &Facts,
    key: &SubjectKey,
    signer: &dyn CertSigner,
    ca_key: &SubjectKey,
) -> Result<Vec<u8>, IssueError> {
    let encode = |e: rcgen::Error| IssueError::Encode(e.to_string());
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = distinguished_name(&intent.issuer).map_err(encode)?;
    issuer.key_identifier_method = KeyIdMethod::PreSpecified(intent.authority_key_id.clone());
    let signer = Signer { key: ca_key, signer, failure: RefCell::new(None) };
    let issuer = Issuer::new(issuer, &signer);
    match params(intent).and_then(|p| p.signed_by(key, &issuer)) {
        Ok(cert) => Ok(cert.der().to_vec()),
        Err(e) => Err(signer.failure.take().map_or_else(|| encode(e), IssueError::Sign)),
    }
}

/// A certification request for `key`, signed by `signer`, whose key it is.
pub(crate) fn request(key: &SubjectKey, signer: &dyn CertSigner) -> Result<Vec<u8>, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let signer = Signer { key, signer, failure: RefCell::new(None) };
    match params.serialize_request(&signer) {
        Ok(csr) => Ok(csr.der().to_vec()),
        Err(e) => Err(signer.failure.take().map_or_else(|| IssueError::Encode(e.to_string()), IssueError::Sign)),
    }
}

fn params(intent: &Facts) -> Result<CertificateParams, rcgen::Error> {
    let mut p = CertificateParams::default();
    p.serial_number = Some(intent.serial.clone().into());
    p.distinguished_name = distinguished_name(&intent.subject)?;
    p.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(intent.not_before.secs());
    p.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(intent.not_after.secs());
    p.is_ca = match (intent.ca, intent.path_len) {
        (false, _) => IsCa::ExplicitNoCa,
        (true, Some(n)) => IsCa::Ca(BasicConstraints::Constrained(u8::try_from(n).unwrap_or(u8::MAX))),
        (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
    };
    p.key_identifier_method = KeyIdMethod::PreSpecified(intent.subject_key_id.clone());
    p.use_authority_key_identifier_extension = !intent.authority_key_id.is_empty();
    p.key_usages = [
        (usage::DIGITAL_SIGNATURE, KeyUsagePurpose::DigitalSignature),
        (usage::KEY_CERT_SIGN, KeyUsagePurpose::KeyCertSign),
        (usage::CRL_SIGN, KeyUsagePurpose::CrlSign),
    ]
    .into_iter()
    .filter_map(|(bit, purpose)| (intent.key_usage & bit != 0).then_some(purpose))
    .collect();
    p.extended_key_usages = [
        (intent.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        (intent.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
    ]
    .into_iter()
    .filter_map(|(wanted, purpose)| wanted.then_some(purpose))
    .collect();
    for uri in &intent.uris {
        p.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    Ok(p)
}

/// `issue` keeps times between 1970 and 9999, so that adding this to the epoch cannot overflow.
fn since_epoch(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

fn distinguished_name(name: &Name) -> Result<DistinguishedName, rcgen::Error> {
    let mut dn = DistinguishedName::new();
    match name {
        Name::Empty => {}
        Name::Ca { common_name, serial_number } => {
            dn.push(DnType::CommonName, common_name.as_str());
            let number = PrintableString::try_from(serial_number.as_str())?;
            dn.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), DnValue::PrintableString(number));
        }
        Name::Other(_) => return Err(rcgen::Error::CouldNotParseCertificate),
    }
    Ok(dn)
}
