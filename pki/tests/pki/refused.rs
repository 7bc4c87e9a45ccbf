//! More ways for a chain to be wrong: keys, names, and what is said by an issuer. Each is refused for its reason.

use crate::world::{
    Ca, Change, DAY, Key, NOW, OUT_OF_TIME, World, chain, critical, forge, forge_under, id, name_of, new_ca_issuer,
    new_ca_root, trust_domain, uri, valid,
};
use holdfast_pki::chain::{Anchors, ChainError, Usage, read_leaf, verify_peer};
use holdfast_pki::issue::ROOT_LIFE;
use holdfast_pki::names::NameError;
use holdfast_types::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use std::time::Duration;

fn judge(root: &Ca, ders: &[&Vec<u8>]) -> Result<SpiffeId, ChainError> {
    let anchors = Anchors::new(&[&root.der], trust_domain()).unwrap();
    verify_peer(&chain(ders), &anchors, NOW, Usage::Client).map(|peer| peer.id)
}

/// A P-256 key whose point is written compressed.
struct Compressed(Vec<u8>);
impl Compressed {
    fn new() -> Self {
        let key = Key::new();
        let point = PublicKeyData::der_bytes(&key).to_vec();
        Self([vec![2 + (point[64] & 1)], point[1..33].to_vec()].concat())
    }
}
impl PublicKeyData for Compressed {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[test]
fn a_leaf_with_a_weak_key_is_refused_wherever_a_leaf_is_read() {
    let World { root, issuer, .. } = World::new();
    let [p384, rsa, ed25519] =
        [&PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256, &PKCS_ED25519].map(|a| KeyPair::generate_for(a).unwrap());
    let table = [
        ("P-384", forge(&issuer, &p384, |_| {})),
        ("RSA 2048", forge(&issuer, &rsa, |_| {})),
        ("compressed point", forge(&issuer, &Compressed::new(), |_| {})),
    ];
    for (what, leaf) in table {
        assert_eq!(judge(&root, &[&leaf, &issuer.der]), Err(ChainError::WeakKey), "{what}");
        assert_eq!(read_leaf(&chain(&[&leaf]), Usage::Client).unwrap_err(), ChainError::WeakKey, "{what}");
    }
    let good = forge(&issuer, &ed25519, |_| {});
    assert_eq!(judge(&root, &[&good, &issuer.der]), Ok(id("node/n1")));
}

#[test]
fn an_issuer_with_a_weak_key_signs_nothing_that_is_believed() {
    let root = World::new().root;
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issuer = forge(&root, &key, as_issuer);
        let leaf = forge_under(&issuer, &key, &Key::new(), |_| {});
        assert_eq!(judge(&root, &[&leaf, &issuer]), Err(ChainError::WeakKey));
    }
}

/// What makes a forged leaf a forged issuer.
fn as_issuer(p: &mut CertificateParams) {
    p.subject_alt_names.clear();
    p.extended_key_usages.clear();
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.distinguished_name.push(DnType::CommonName, "forged issuer");
}

/// Beside [`OUT_OF_TIME`]: what a holder of the root's key could make of an issuer, and why what it signs is refused.
const FORGED_ISSUERS: &[Change] = &[
    (
        "for servers only",
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        ChainError::Usage("client"),
    ),
    ("an unknown critical extension", |p| p.custom_extensions.push(critical()), ChainError::CriticalExtension),
    ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa, ChainError::NotCa),
    ("no keyCertSign", |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature], ChainError::NotCa),
    ("no key usage", |p| p.key_usages.clear(), ChainError::NotCa),
    ("serial 0", |p| p.serial_number = Some(vec![0].into()), ChainError::ZeroSerial),
];

#[test]
fn a_leaf_below_a_forged_issuer_is_refused_for_what_is_wrong_with_the_issuer() {
    let root = World::new().root;
    let below = |change: fn(&mut CertificateParams)| {
        let key = Key::new();
        let der = forge(&root, &key, |p| {
            as_issuer(p);
            change(p);
        });
        let leaf = forge_under(&der, &key, &Key::new(), |_| {});
        judge(&root, &[&leaf, &der])
    };
    assert_eq!(below(|_| {}), Ok(id("node/n1")), "the unchanged forgery is good: the changes make the difference");
    for (what, change, expected) in OUT_OF_TIME.iter().chain(FORGED_ISSUERS) {
        assert_eq!(below(*change).as_ref(), Err(expected), "{what}");
    }
}

/// What makes a forged leaf a forged root of the name that all roots have, or that root's certificate by another one.
fn as_root(p: &mut CertificateParams, name: &Ca) {
    as_issuer(p);
    p.key_usages.push(KeyUsagePurpose::CrlSign);
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    p.distinguished_name = name_of(&name.der);
}

#[test]
fn a_root_with_a_weak_key_anchors_nothing() {
    let ours = new_ca_root(NOW, ROOT_LIFE);
    let below = |root: &[u8], key: &KeyPair| {
        let issuer = Key::new();
        let der = forge_under(root, key, &issuer, as_issuer);
        let leaf = forge_under(&der, &issuer, &Key::new(), |_| {});
        let anchors = Anchors::new(&[root], trust_domain()).unwrap();
        let chain = chain(&[&leaf, &der]);
        verify_peer(&chain, &anchors, NOW, Usage::Client).map(|peer| peer.id)
    };
    let table = [
        ("P-256", &PKCS_ECDSA_P256_SHA256, Ok(id("node/n1"))),
        ("P-384", &PKCS_ECDSA_P384_SHA384, Err(ChainError::WeakKey)),
        ("RSA 2048", &PKCS_RSA_SHA256, Err(ChainError::WeakKey)),
        ("Ed25519", &PKCS_ED25519, Err(ChainError::WeakKey)),
    ];
    for (what, algorithm, expected) in table {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = forge_under(&ours.der, &key, &key, |p| as_root(p, &ours));
        assert_eq!(below(&root, &key), expected, "{what}");
    }
}

/// Beside [`OUT_OF_TIME`]: what the holder of an old root's key could make of a cross-certificate. The old root has the name of
/// the new one, and has not signed the issuer: that weighs more than most of what is wrong with the path over it.
const FORGED_CROSSES: &[Change] = &[
    (
        "for servers only",
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        ChainError::BadSignature,
    ),
    ("an unknown critical extension", |p| p.custom_extensions.push(critical()), ChainError::BadSignature),
    ("path length 0", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), ChainError::BadSignature),
    ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa, ChainError::BadSignature),
    ("no keyCertSign", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign], ChainError::NotCa),
    ("no key usage", |p| p.key_usages.clear(), ChainError::NotCa),
    ("serial 0", |p| p.serial_number = Some(vec![0].into()), ChainError::ZeroSerial),
];

#[test]
fn a_forged_cross_certificate_leads_nobody_to_the_old_root() {
    let (old, new) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let issuer = new_ca_issuer(&new, NOW);
    let leaf = forge(&issuer, &Key::new(), |_| {});
    let over = |change: fn(&mut CertificateParams)| {
        let cross = forge(&old, &new.key, |p| {
            as_root(p, &new);
            change(p);
        });
        judge(&old, &[&leaf, &issuer.der, &cross, &new.der])
    };
    assert_eq!(over(|_| {}), Ok(id("node/n1")), "the unchanged forgery is good: the changes make the difference");
    for (what, change, expected) in OUT_OF_TIME.iter().chain(FORGED_CROSSES) {
        assert_eq!(over(*change).as_ref(), Err(expected), "{what}");
    }
}

#[test]
fn a_name_has_one_spelling_and_one_place() {
    let World { root, issuer, .. } = World::new();
    let named = |name: &str| {
        judge(&root, &[&forge(&issuer, &Key::new(), |p| p.subject_alt_names = vec![uri(name)]), &issuer.der])
    };
    assert_eq!(named("spiffe://prod.example.org/node/n2"), Ok(id("node/n2")));
    for trick in [
        "SPIFFE://prod.example.org/node/n1",
        "spiffe://PROD.example.org/node/n1",
        "spiffe://prod.example.org:443/node/n1",
        "spiffe://root@prod.example.org/node/n1",
        "spiffe://prod.example.org//node/n1",
        "spiffe://prod.example.org/node/n1/",
        "spiffe://prod.example.org/node/../vault/1",
        "spiffe://prod.example.org/node/%6e1",
        "spiffe://prod.example.org/node/n1?role=vault",
        "spiffe://prod.example.org/node/n1#vault",
        "spiffe://prod.example.org/vault/1\0.evil.example",
        "spiffe://prod.example.org/vault/1 ",
        "spiffe://prod.example.org/vault",
        "spiffe://prod.example.org",
        "prod.example.org/vault/1",
    ] {
        let reason = SpiffeId::parse(trick).unwrap_err();
        assert_eq!(named(trick), Err(ChainError::Name(NameError::Spiffe(reason))), "{trick:?}");
    }
    let elsewhere = forge(&issuer, &Key::new(), |p| {
        p.subject_alt_names.clear();
        p.distinguished_name.push(DnType::CommonName, "spiffe://prod.example.org/vault/1");
    });
    assert_eq!(judge(&root, &[&elsewhere, &issuer.der]), Err(ChainError::Name(NameError::Uris(0))));
    let beside = forge(&issuer, &Key::new(), |p| {
        p.subject_alt_names.push(SanType::Rfc822Name("root@prod.example.org".try_into().unwrap()));
    });
    assert_eq!(judge(&root, &[&beside, &issuer.der]), Err(ChainError::Name(NameError::OtherName)));
}

#[test]
fn a_life_that_ends_before_it_begins_is_none() {
    let World { root, issuer, .. } = World::new();
    let leaf = forge(&issuer, &Key::new(), |p| valid(p, NOW.plus(DAY), NOW.minus(DAY + Duration::from_secs(1))));
    assert!(judge(&root, &[&leaf, &issuer.der]).is_err());
}
