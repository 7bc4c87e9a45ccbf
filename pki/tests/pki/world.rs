//! A small cluster to test with: keys in memory, one root, one issuer; and a forger who holds the same keys.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_pki::chain::ChainError;
use holdfast_pki::given::check_root;
use holdfast_pki::issue::{ISSUER_LIFE, Issued, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_types::{ClusterId, Millis, SpiffeId, TrustDomain};
use holdfast_wire::keys::SignError;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, Issuer, KeyIdMethod, PublicKeyData,
    SigningKey,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// 2027-01-15T08:00:00Z.
pub const NOW: Millis = Millis(1_800_000_000_000);
pub const DAY: Duration = Duration::from_secs(86_400);
pub const CLUSTER: ClusterId = ClusterId([7; 32]);

/// A P-256 key in memory.
pub struct Key(EcdsaKeyPair);
impl Key {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }
    pub fn subject(&self) -> SubjectKey {
        SubjectKey::from_sec1(&self.sec1()).unwrap()
    }
}
impl CertSigner for Key {
    fn sec1(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.0.sign(&SystemRandom::new(), msg).unwrap().as_ref().to_vec())
    }
}
impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
impl SigningKey for Key {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(CertSigner::sign(self, msg).unwrap())
    }
}

/// A certificate with the key that it certifies.
pub struct Ca {
    pub key: Key,
    pub der: Vec<u8>,
}

/// One root and one issuer below it.
pub struct World {
    pub root: Ca,
    pub issuer: Ca,
    /// When leaves are made.
    pub now: Millis,
}
impl World {
    pub fn new() -> Self {
        Self::starting(NOW, ROOT_LIFE)
    }
    /// A root made at `at` for `life`, and an issuer made then for its usual life.
    pub fn starting(at: Millis, life: Duration) -> Self {
        let root = new_ca_root(at, life);
        let issuer = new_ca_issuer(&root, at);
        Self { root, issuer, now: at }
    }
    pub fn leaf(&self, id: &SpiffeId) -> Issued {
        self.leaf_for(&Key::new().subject(), id, 3 * DAY)
    }
    pub fn leaf_for(&self, key: &SubjectKey, id: &SpiffeId, life: Duration) -> Issued {
        IssuerCa::open(&self.issuer.der, &self.issuer.key).unwrap().leaf(key, id, serial(9), self.now, life).unwrap()
    }
    /// `[leaf, issuer]`.
    pub fn chain(&self, id: &SpiffeId) -> Vec<CertificateDer<'static>> {
        chain(&[&self.leaf(id).der, &self.issuer.der])
    }
}

pub fn new_ca_root(at: Millis, life: Duration) -> Ca {
    let key = Key::new();
    let der = new_root(&key, &CLUSTER, serial(1), at, life).unwrap().der;
    Ca { key, der }
}

/// A root as operators bring one: with the name of ours, and changed by `change`.
pub fn given_root(at: Millis, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let key = Key::new();
    let mut p = CertificateParams::default();
    p.distinguished_name = name_of(&new_ca_root(at, ROOT_LIFE).der);
    p.serial_number = Some(vec![7; 9].into());
    valid(&mut p, at.minus(DAY), at.plus(ROOT_LIFE));
    p.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(2));
    change(&mut p);
    let der = p.self_signed(&key).unwrap().der().to_vec();
    check_root(&der, &CLUSTER, at).unwrap();
    Ca { key, der }
}

pub fn new_ca_issuer(root: &Ca, at: Millis) -> Ca {
    let key = Key::new();
    let ca = RootCa::open(&root.der, &root.key).unwrap();
    let der = ca.issuer(&key.subject(), serial(2), at, ISSUER_LIFE).unwrap().der;
    Ca { key, der }
}

pub fn serial(n: u8) -> [u8; 16] {
    [0xf0 ^ n; 16]
}

pub fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://prod.example.org/{path}")).unwrap()
}

pub fn trust_domain() -> TrustDomain {
    TrustDomain::parse("prod.example.org").unwrap()
}

pub fn chain(ders: &[&Vec<u8>]) -> Vec<CertificateDer<'static>> {
    ders.iter().map(|d| CertificateDer::from((*d).clone())).collect()
}

pub fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

/// A certificate by the forger: valid node leaf parameters, changed by `change`, signed by `ca`'s key for `key`.
pub fn forge(ca: &Ca, key: &impl PublicKeyData, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    forge_under(&ca.der, &ca.key, key, change)
}

/// The same with a CA's key of any kind.
pub fn forge_under<S: SigningKey>(
    ca: &[u8],
    signer: &S,
    key: &impl PublicKeyData,
    change: impl FnOnce(&mut CertificateParams),
) -> Vec<u8> {
    let mut p = CertificateParams::default();
    p.distinguished_name = DistinguishedName::new();
    p.serial_number = Some(vec![5; 16].into());
    valid(&mut p, NOW.minus(DAY), NOW.plus(DAY));
    p.subject_alt_names = vec![uri("spiffe://prod.example.org/node/n1")];
    p.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    p.is_ca = rcgen::IsCa::ExplicitNoCa;
    p.use_authority_key_identifier_extension = true;
    change(&mut p);
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = name_of(ca);
    let key_id = holdfast_types::sha256(&[&signer.subject_public_key_info()]);
    issuer.key_identifier_method = KeyIdMethod::PreSpecified(key_id.0[..20].to_vec());
    p.signed_by(key, &Issuer::new(issuer, signer)).unwrap().der().to_vec()
}

pub fn uri(s: &str) -> rcgen::SanType {
    rcgen::SanType::URI(s.try_into().unwrap())
}

fn secs(t: Millis) -> Duration {
    Duration::from_secs(u64::try_from(t.secs()).unwrap())
}

/// Sets the validity, which rcgen wants in a type of another crate.
pub fn valid(p: &mut CertificateParams, from: Millis, until: Millis) {
    p.not_before = rcgen::date_time_ymd(1970, 1, 1) + secs(from);
    p.not_after = rcgen::date_time_ymd(1970, 1, 1) + secs(until);
}

/// What a forger changes, and why what comes of it is refused.
pub type Change = (&'static str, fn(&mut CertificateParams), ChainError);

const DAY_MS: i64 = 86_400_000;

pub const OUT_OF_TIME: &[Change] = &[
    (
        "expired",
        |p| valid(p, NOW.minus(2 * DAY), NOW.minus(DAY)),
        ChainError::Expired { not_after: Millis(NOW.0 - DAY_MS) },
    ),
    (
        "not yet valid",
        |p| valid(p, NOW.plus(DAY), NOW.plus(2 * DAY)),
        ChainError::NotYetValid { not_before: Millis(NOW.0 + DAY_MS) },
    ),
];

pub fn private() -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0])
}
pub fn critical() -> CustomExtension {
    let mut e = private();
    e.set_criticality(true);
    e
}

/// The subject of a CA certificate of ours, as the forger copies it.
pub fn name_of(der: &[u8]) -> DistinguishedName {
    let cert = parse(der);
    let mut dn = DistinguishedName::new();
    for a in cert.subject().iter_attributes() {
        match a.attr_type().to_id_string().as_str() {
            "2.5.4.3" => dn.push(DnType::CommonName, a.as_str().unwrap()),
            _ => dn.push(
                DnType::CustomDnType(vec![2, 5, 4, 5]),
                DnValue::PrintableString(a.as_str().unwrap().try_into().unwrap()),
            ),
        }
    }
    dn
}
