//! What a certificate says, as a value: read from DER, or intended before signing, and compared with `==`.
//!
//! Reading judges nothing; it only refuses what is not one well-formed certificate of bounded size.

use data_encoding::HEXLOWER;
use holdfast_types::Millis;
use holdfast_wire::keys::verify;
use holdfast_wire::v1;
use std::collections::BTreeMap;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// Longest accepted certificate, in bytes; ours have under 1 KiB.
pub const MAX_CERT: usize = 8 << 10;

/// Why bytes are not a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// Longer than [`MAX_CERT`].
    #[error("the certificate has {0} bytes, at most {MAX_CERT} are allowed")]
    TooLong(usize),
    /// Not a DER X.509 certificate, or one of its extensions cannot be read.
    #[error("not a certificate in DER (X.509)")]
    Malformed,
    /// Bytes after the certificate.
    #[error("bytes follow the certificate")]
    TrailingBytes,
    /// The same extension twice (forbidden by RFC 5280, section 4.2).
    #[error("the certificate carries an extension twice")]
    DuplicateExtension,
}

/// keyUsage bits, numbered as in RFC 5280, section 4.2.1.3.
pub(crate) mod usage {
    /// digitalSignature.
    pub(crate) const DIGITAL_SIGNATURE: u16 = 1;
    /// keyCertSign.
    pub(crate) const KEY_CERT_SIGN: u16 = 1 << 5;
    /// cRLSign.
    pub(crate) const CRL_SIGN: u16 = 1 << 6;
}

/// Extension identifiers of RFC 5280, section 4.2.1.
pub(crate) mod ext {
    pub(crate) const SUBJECT_KEY_ID: &str = "2.5.29.14";
    pub(crate) const KEY_USAGE: &str = "2.5.29.15";
    pub(crate) const SUBJECT_ALT_NAME: &str = "2.5.29.17";
    pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
    pub(crate) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
    pub(crate) const EXT_KEY_USAGE: &str = "2.5.29.37";
}

/// A distinguished name: none, one of our CAs', or somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// No attributes: leaves.
    Empty,
    /// `CN` (UTF8String), then `serialNumber` (PrintableString), in exactly this form.
    Ca { common_name: String, serial_number: String },
    /// Any other, in DER.
    Other(Vec<u8>),
}
impl Name {
    fn read(name: &X509Name<'_>) -> Self {
        let attributes: Vec<(String, Tag, &str)> = name
            .iter_rdn()
            .filter(|rdn| rdn.iter().count() == 1)
            .flat_map(|rdn| rdn.iter())
            .filter_map(|a| Some((a.attr_type().to_id_string(), a.attr_value().tag(), a.as_str().ok()?)))
            .collect();
        match attributes.as_slice() {
            [] if name.iter_rdn().count() == 0 => Self::Empty,
            [(cn, Tag::Utf8String, common_name), (sn, Tag::PrintableString, serial_number)]
                if name.iter_rdn().count() == 2 && cn == "2.5.4.3" && sn == "2.5.4.5" =>
            {
                Self::Ca { common_name: (*common_name).to_owned(), serial_number: (*serial_number).to_owned() }
            }
            _ => Self::Other(name.as_raw().to_vec()),
        }
    }
}

/// What a certificate says. Absent key identifiers are empty, absent keyUsage is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Big-endian, without leading zeros: empty for serial 0.
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    pub(crate) not_before: Millis,
    pub(crate) not_after: Millis,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki: Vec<u8>,
    pub(crate) ca: bool,
    pub(crate) path_len: Option<u32>,
    pub(crate) key_usage: u16,
    pub(crate) client_auth: bool,
    pub(crate) server_auth: bool,
    /// Any extended key usage beside these two.
    pub(crate) other_usage: bool,
    pub(crate) uris: Vec<String>,
    /// How many alternative names are not URIs.
    pub(crate) other_names: usize,
    pub(crate) subject_key_id: Vec<u8>,
    pub(crate) authority_key_id: Vec<u8>,
    /// Every extension's identifier, and whether it is critical.
    pub(crate) extensions: BTreeMap<String, bool>,
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertError> {
    if der.len() > MAX_CERT {
        return Err(CertError::TooLong(der.len()));
    }
    let (rest, cert) = X509Certificate::from_der(der).map_err(|_| CertError::Malformed)?;
    if rest.is_empty() { Ok(cert) } else { Err(CertError::TrailingBytes) }
}

impl Facts {
    /// Reads one certificate.
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertError> {
        let cert = parse(der)?;
        let mut facts = Self {
            serial: cert.raw_serial().iter().copied().skip_while(|b| *b == 0).collect(),
            issuer: Name::read(cert.issuer()),
            subject: Name::read(cert.subject()),
            not_before: Millis(cert.validity().not_before.timestamp().saturating_mul(1000)),
            not_after: Millis(cert.validity().not_after.timestamp().saturating_mul(1000)),
            spki: cert.public_key().raw.to_vec(),
            ca: false,
            path_len: None,
            key_usage: 0,
            client_auth: false,
            server_auth: false,
            other_usage: false,
            uris: Vec::new(),
            other_names: 0,
            subject_key_id: Vec::new(),
            authority_key_id: Vec::new(),
            extensions: BTreeMap::new(),
        };
        for extension in cert.extensions() {
            facts.read_extension(extension)?;
        }
        Ok(facts)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser knows thirty extensions; ours are six, and every one is listed by identifier"
    )]
    fn read_extension(&mut self, extension: &X509Extension<'_>) -> Result<(), CertError> {
        if self.extensions.insert(extension.oid.to_id_string(), extension.critical).is_some() {
            return Err(CertError::DuplicateExtension);
        }
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return Err(CertError::Malformed),
            ParsedExtension::BasicConstraints(b) => (self.ca, self.path_len) = (b.ca, b.path_len_constraint),
            ParsedExtension::KeyUsage(k) => self.key_usage = k.flags,
            ParsedExtension::ExtendedKeyUsage(e) => self.read_extended_usage(e),
            ParsedExtension::SubjectKeyIdentifier(k) => self.subject_key_id = k.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(a) => {
                self.authority_key_id = a.key_identifier.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
            }
            ParsedExtension::SubjectAlternativeName(san) => {
                for name in &san.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                        _ => self.other_names += 1,
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read_extended_usage(&mut self, e: &ExtendedKeyUsage<'_>) {
        (self.client_auth, self.server_auth) = (e.client_auth, e.server_auth);
        self.other_usage =
            e.any || e.code_signing || e.email_protection || e.time_stamping || e.ocsp_signing || !e.other.is_empty();
    }

    /// Whether it names itself as its issuer and no other key as the one that signed it. A cross-certificate names another.
    pub(crate) fn is_root(&self) -> bool {
        let own = self.authority_key_id.is_empty() || self.authority_key_id == self.subject_key_id;
        self.ca && self.subject == self.issuer && own
    }

    /// The serial number in lower-case hex without leading zero bytes, as the registry keeps it.
    pub(crate) fn serial_hex(&self) -> String {
        HEXLOWER.encode(&self.serial)
    }

    /// Whether `now` lies within the validity, both ends included (RFC 5280, section 4.1.2.5).
    pub(crate) fn valid_at(&self, now: Millis) -> bool {
        self.not_before.secs() <= now.secs() && now.secs() <= self.not_after.secs()
    }
}

/// Whether the certificate's signature is `key`'s.
pub(crate) fn signed_by(der: &[u8], key: &v1::PublicKey) -> bool {
    parse(der).is_ok_and(|c| verify(key, c.tbs_certificate.as_ref(), &c.signature_value.data))
}
