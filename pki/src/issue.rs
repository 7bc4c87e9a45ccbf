//! Making certificates: what is intended is written down as [`Facts`], signed, read back and compared.
//!
//! Never copies anything but a public key from outside, and never outlives its issuer (INV9).

use crate::facts::{CertError, Facts, Name, ext, signed_by, usage};
use crate::keys::{CertSigner, SubjectKey, WeakKey};
use data_encoding::HEXLOWER;
use holdfast_types::{ClusterId, Digest, Millis, Role, SpiffeId};
use holdfast_wire::keys::SignError;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far notBefore lies in the past, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// A root's usual life: 10 years.
pub const ROOT_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// An issuer's usual life: 30 days.
pub const ISSUER_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The last second of year 9999, the last that X.509 can write.
const LAST_SECOND: i64 = 253_402_300_799;
pub(crate) const ROOT_NAME: &str = "Holdfast root";
const ISSUER_NAME: &str = "Holdfast issuer";
const CA_USAGE: u16 = usage::KEY_CERT_SIGN | usage::CRL_SIGN;
/// An issuer and a cross-certificate: GnuTLS counts the latter, though RFC 5280, section 6.1.4 (l), does not.
const ROOT_PATH_LEN: u32 = 2;
const CROSS_PATH_LEN: u32 = 1;
const ISSUER_PATH_LEN: u32 = 0;

/// Why no certificate was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The CA's own certificate cannot be read.
    #[error("the CA certificate: {0}")]
    Ca(#[from] CertError),
    /// The certificate is not a root, or not an issuer, of the form written here.
    #[error("the certificate is not {0}")]
    NotA(&'static str),
    /// The signer's key is not the one in the CA certificate.
    #[error("the signing key does not belong to the CA certificate")]
    KeyMismatch,
    /// A key that cannot be certified.
    #[error(transparent)]
    Key(#[from] WeakKey),
    /// The CA certificate is expired or not yet valid.
    #[error("the CA certificate is valid from {not_before} to {not_after} only; rotate it")]
    CaNotValid {
        /// Start of the CA's validity.
        not_before: Millis,
        /// End of the CA's validity.
        not_after: Millis,
    },
    /// The life is under a second or reaches beyond the year 9999.
    #[error("the life asked for cannot be written in a certificate")]
    Life,
    /// The serial number is zero: the source of entropy is broken.
    #[error("the serial number is zero")]
    ZeroSerial,
    /// Both roots are one key, or they belong to different clusters.
    #[error("a cross-certificate needs two different roots of one cluster")]
    Cross,
    /// The signer failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The encoder refused.
    #[error("the certificate could not be encoded: {0}")]
    Encode(String),
    /// What was signed is not what was intended, or does not verify under the CA's key; nothing was released.
    #[error("the signed certificate differs from its intent in {0}")]
    Differs(&'static str),
}

/// A certificate that says what was intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its serial number, lower-case hex without leading zero bytes.
    pub serial_hex: String,
    /// When it ends; the whole second.
    pub not_after: Millis,
    /// `H(SubjectPublicKeyInfo)`.
    pub spki_sha256: Digest,
}

/// Signs a root for `cluster`, whose id becomes the subject's serialNumber, so that a joining node can compute the
/// anchor from the root alone.
pub fn new_root(
    signer: &dyn CertSigner,
    cluster: &ClusterId,
    serial: [u8; 16],
    now: Millis,
    life: Duration,
) -> Result<Issued, IssueError> {
    let key = SubjectKey::from_sec1(&signer.sec1())?;
    let name = Name::Ca { common_name: ROOT_NAME.to_owned(), serial_number: cluster.hex() };
    let intent = ca_intent(&key, name.clone(), ROOT_PATH_LEN, serial, now, now.plus(life))?;
    seal(Facts { issuer: name, ..intent }, &key, signer, &key)
}

/// The cluster that a root certificate belongs to, if it is a root of ours. Proves nothing by itself.
pub fn cluster_of_root(root_der: &[u8]) -> Option<ClusterId> {
    cluster_of(&Facts::read(root_der).ok()?)
}

fn cluster_of(facts: &Facts) -> Option<ClusterId> {
    match &facts.subject {
        Name::Ca { common_name, serial_number }
            if common_name == ROOT_NAME && facts.subject == facts.issuer && facts.ca =>
        {
            ClusterId::parse(serial_number)
        }
        Name::Ca { .. } | Name::Empty | Name::Other(_) => None,
    }
}

/// A certificate of ours that is used as a CA, with the key that it certifies.
struct CaCert {
    facts: Facts,
    key: SubjectKey,
}
impl CaCert {
    fn read(der: &[u8]) -> Result<Self, IssueError> {
        let facts = Facts::read(der)?;
        let key = SubjectKey::from_spki(&facts.spki)?;
        Ok(Self { facts, key })
    }
    /// A self-signed root of the profile of [`new_root`], or one that operators brought: with room for an issuer below it.
    fn root(der: &[u8]) -> Result<Self, IssueError> {
        let ca = Self::read(der)?;
        let signs = ca.facts.key_usage & CA_USAGE == CA_USAGE;
        let ours = cluster_of(&ca.facts).is_some() && ca.facts.path_len.is_none_or(|n| n > 0) && signs;
        if ours && signed_by(der, ca.key.public()) { Ok(ca) } else { Err(IssueError::NotA("one of our roots")) }
    }
    fn issuer(der: &[u8]) -> Result<Self, IssueError> {
        let ca = Self::read(der)?;
        let named = matches!(&ca.facts.subject, Name::Ca { common_name, .. } if common_name == ISSUER_NAME);
        let ours = named && ca.facts.ca && ca.facts.path_len == Some(ISSUER_PATH_LEN) && ca.facts.key_usage == CA_USAGE;
        if ours { Ok(ca) } else { Err(IssueError::NotA("one of our issuers")) }
    }
    fn check_signer(&self, signer: &dyn CertSigner) -> Result<(), IssueError> {
        if self.key.sec1() == Some(signer.sec1().as_slice()) { Ok(()) } else { Err(IssueError::KeyMismatch) }
    }
    /// `intent` as issued by this CA: its name, its key identifier, and no longer than it lives (LAW: INV9, test
    /// `no_certificate_outlives_its_issuer`).
    fn issue(
        &self,
        mut intent: Facts,
        now: Millis,
        key: &SubjectKey,
        signer: &dyn CertSigner,
    ) -> Result<Issued, IssueError> {
        let Facts { not_before, not_after, .. } = self.facts;
        if !self.facts.valid_at(now) || not_after <= now {
            return Err(IssueError::CaNotValid { not_before, not_after });
        }
        intent.issuer = self.facts.subject.clone();
        intent.authority_key_id = self.facts.subject_key_id.clone();
        intent.extensions.insert(ext::AUTHORITY_KEY_ID.to_owned(), false);
        intent.not_after = intent.not_after.min(not_after);
        seal(intent, key, signer, &self.key)
    }
}

/// A root with its key: signs issuers and cross-certificates, never leaves.
pub struct RootCa<'a> {
    ca: CaCert,
    signer: &'a dyn CertSigner,
}
impl<'a> RootCa<'a> {
    /// Checks that `root_der` is a root of ours and that `signer` is its key.
    pub fn open(root_der: &[u8], signer: &'a dyn CertSigner) -> Result<Self, IssueError> {
        let ca = CaCert::root(root_der)?;
        ca.check_signer(signer)?;
        Ok(Self { ca, signer })
    }
    /// An issuer (path length 0) for a P-256 key.
    pub fn issuer(
        &self,
        key: &SubjectKey,
        serial: [u8; 16],
        now: Millis,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        key.sec1().ok_or(WeakKey)?;
        // The key identifier makes issuers' names distinct, so that a path builder never has to try.
        let serial_number = HEXLOWER.encode(&key.key_identifier());
        let name = Name::Ca { common_name: ISSUER_NAME.to_owned(), serial_number };
        let intent = ca_intent(key, name, ISSUER_PATH_LEN, serial, now, now.plus(life))?;
        self.ca.issue(intent, now, key, self.signer)
    }
    /// Another root of the same cluster, certified by this one for as long as both live.
    ///
    /// Both roots have one name, so the result is *self-issued* and does not count against the path length
    /// (RFC 5280, section 6.1.4); GnuTLS and webpki count it, and a root leaves room for it.
    pub fn cross(&self, other_root_der: &[u8], serial: [u8; 16], now: Millis) -> Result<Issued, IssueError> {
        let other = CaCert::root(other_root_der)?;
        if other.facts.subject != self.ca.facts.subject || other.key == self.ca.key {
            return Err(IssueError::Cross);
        }
        if !other.facts.valid_at(now) {
            let Facts { not_before, not_after, .. } = other.facts;
            return Err(IssueError::CaNotValid { not_before, not_after });
        }
        let mut intent =
            ca_intent(&other.key, other.facts.subject, CROSS_PATH_LEN, serial, now, other.facts.not_after)?;
        // The one that certificates under it name.
        intent.subject_key_id = other.facts.subject_key_id;
        self.ca.issue(intent, now, &other.key, self.signer)
    }
}

/// An issuer with its key: signs leaves and nothing else. Checked once, it signs as many as are asked for.
pub struct IssuerCa<S: CertSigner + ?Sized> {
    ca: CaCert,
    der: Vec<u8>,
    signer: S,
}
impl<S: CertSigner> IssuerCa<S> {
    /// Checks that `issuer_der` is an issuer of ours and that `signer` is its key.
    pub fn open(issuer_der: &[u8], signer: S) -> Result<Self, IssueError> {
        let ca = CaCert::issuer(issuer_der)?;
        ca.check_signer(&signer)?;
        Ok(Self { ca, der: issuer_der.to_vec(), signer })
    }
}
impl<S: CertSigner + ?Sized> IssuerCa<S> {
    /// Its certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
    /// A leaf that binds `key` to `id`. The extended key usage follows the id's role.
    pub fn leaf(
        &self,
        key: &SubjectKey,
        id: &SpiffeId,
        serial: [u8; 16],
        now: Millis,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        let mut intent = intent(key, serial, now, now.plus(life))?;
        intent.key_usage = usage::DIGITAL_SIGNATURE;
        intent.client_auth = true;
        intent.server_auth = listens(id.role);
        intent.uris = vec![id.to_string()];
        // The subject is empty, so the name must be critical (RFC 5280, section 4.2.1.6).
        intent.extensions.insert(ext::SUBJECT_ALT_NAME.to_owned(), true);
        intent.extensions.insert(ext::EXT_KEY_USAGE.to_owned(), false);
        // Behind one more reference, because `S` may be a trait object already.
        self.ca.issue(intent, now, key, &&self.signer)
    }
}

/// Whether this role ever accepts a connection: nodes and operators have no open port.
fn listens(role: Role) -> bool {
    match role {
        Role::Vault | Role::Orch | Role::Svc => true,
        Role::Node | Role::Op => false,
    }
}

fn ca_intent(
    key: &SubjectKey,
    subject: Name,
    path_len: u32,
    serial: [u8; 16],
    now: Millis,
    not_after: Millis,
) -> Result<Facts, IssueError> {
    let intent = intent(key, serial, now, not_after)?;
    Ok(Facts { subject, ca: true, path_len: Some(path_len), key_usage: CA_USAGE, ..intent })
}

/// What every certificate says: serial, validity in whole seconds, key and key identifier.
fn intent(key: &SubjectKey, serial: [u8; 16], now: Millis, not_after: Millis) -> Result<Facts, IssueError> {
    if serial == [0; 16] {
        return Err(IssueError::ZeroSerial);
    }
    let whole = |t: Millis| Millis(t.secs().saturating_mul(1000));
    let (not_before, not_after) = (whole(now.minus(BACKDATE)), whole(not_after));
    if not_after <= now || not_before.0 < 0 || not_after.secs() > LAST_SECOND {
        return Err(IssueError::Life);
    }
    Ok(Facts {
        serial: serial.into_iter().skip_while(|b| *b == 0).collect(),
        issuer: Name::Empty,
        subject: Name::Empty,
        not_before,
        not_after,
        spki: key.spki_der().to_vec(),
        ca: false,
        path_len: None,
        key_usage: 0,
        client_auth: false,
        server_auth: false,
        other_usage: false,
        uris: Vec::new(),
        other_names: 0,
        subject_key_id: key.key_identifier(),
        authority_key_id: Vec::new(),
        extensions: BTreeMap::from([
            (ext::BASIC_CONSTRAINTS.to_owned(), true),
            (ext::KEY_USAGE.to_owned(), true),
            (ext::SUBJECT_KEY_ID.to_owned(), false),
        ]),
    })
}

/// Signs `intent`, reads the result back, and hands it out only if it says exactly that and verifies under `ca_key`.
fn seal(intent: Facts, key: &SubjectKey, signer: &dyn CertSigner, ca_key: &SubjectKey) -> Result<Issued, IssueError> {
    let der = crate::encode::sign(&intent, key, signer, ca_key)?;
    let said = Facts::read(&der).map_err(|_| IssueError::Differs("its encoding"))?;
    if said != intent {
        return Err(IssueError::Differs("what it says"));
    }
    if !signed_by(&der, ca_key.public()) {
        return Err(IssueError::Differs("its signature"));
    }
    Ok(Issued { serial_hex: said.serial_hex(), not_after: said.not_after, spki_sha256: key.spki_sha256(), der })
}
