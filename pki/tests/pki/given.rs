//! What operators bring from outside: each root and issuer that would not work is refused for its own reason, in words that say
//! what to do.

use crate::world::{CLUSTER, Ca, DAY, Key, NOW, critical, forge, name_of, new_ca_root, private, serial, valid};
use holdfast_pki::given::{GivenError, LEAST_ROOT_LIFE, check_issuer, check_root};
use holdfast_pki::issue::{BACKDATE, ISSUER_LIFE, ROOT_LIFE, RootCa};
use holdfast_types::Millis;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SigningKey,
};
use std::time::Duration;

/// A root as operators make one, changed by `change` and signed by its own key.
fn brought(key: &impl SigningKey, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut p = CertificateParams::default();
    p.distinguished_name = name_of(&new_ca_root(NOW, ROOT_LIFE).der);
    p.serial_number = Some(vec![5; 16].into());
    valid(&mut p, NOW.minus(DAY), NOW.plus(ROOT_LIFE));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key_id = holdfast_types::sha256(&[&key.subject_public_key_info()]);
    p.key_identifier_method = KeyIdMethod::PreSpecified(key_id.0[..20].to_vec());
    change(&mut p);
    p.self_signed(key).unwrap().der().to_vec()
}

/// What is wrong, how it comes about, why it is refused, and what the refusal says is to be done.
type Row = (&'static str, fn(&mut CertificateParams), GivenError, &'static str);

fn rows() -> [Row; 12] {
    [
        ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa, GivenError::NotCa, "make it with basicConstraints cA"),
        (
            "another name",
            |p| {
                p.distinguished_name = DistinguishedName::new();
                p.distinguished_name.push(DnType::CommonName, "My own CA");
            },
            GivenError::Subject(CLUSTER.hex()),
            "must be CN=Holdfast root",
        ),
        ("serial 0", |p| p.serial_number = Some(vec![0].into()), GivenError::ZeroSerial, "give it another"),
        (
            "no room for an issuer",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            GivenError::PathLength,
            "make it with pathlen:2",
        ),
        (
            "room for an issuer alone",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)),
            GivenError::PathLength,
            "make it with pathlen:2",
        ),
        ("no key usage", |p| p.key_usages.clear(), GivenError::KeyUsage, "must be keyCertSign and cRLSign"),
        (
            "no cRLSign",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            GivenError::KeyUsage,
            "must be keyCertSign and cRLSign",
        ),
        (
            "an extended key usage",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            GivenError::ExtendedKeyUsage,
            "leave it out",
        ),
        ("no key identifier", without_key_id, GivenError::KeyIdentifier, "add one"),
        (
            "an unknown critical extension",
            |p| p.custom_extensions.push(critical()),
            GivenError::Extension("1.3.6.1.4.1.99999.1".into()),
            "leave it out",
        ),
        (
            "not begun",
            |p| valid(p, NOW.plus(DAY), NOW.plus(ROOT_LIFE)),
            GivenError::NotYetValid(NOW.plus(DAY)),
            "wait for it",
        ),
        (
            "too short",
            |p| valid(p, NOW.minus(DAY), NOW.plus(LEAST_ROOT_LIFE).minus(Duration::from_secs(1))),
            GivenError::Short(Millis(NOW.plus(LEAST_ROOT_LIFE).0 - 1000)),
            "must live for two years",
        ),
    ]
}

/// rcgen writes the key's identifier into every certificate that says whether it is a CA: this one says it by hand.
fn without_key_id(p: &mut CertificateParams) {
    p.is_ca = IsCa::NoCa;
    let mut ca = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    ca.set_criticality(true);
    p.custom_extensions.push(ca);
}

fn refused(what: &str, said: Result<(), GivenError>, expected: &GivenError, todo: &str) {
    let no = said.unwrap_err();
    assert_eq!(&no, expected, "{what}");
    assert!(no.to_string().contains(todo), "{what}: {no}");
}

#[test]
fn a_root_that_would_not_work_is_refused_for_its_own_reason_in_words_that_say_what_to_do() {
    let key = Key::new();
    let judge = |der: &[u8]| check_root(der, &CLUSTER, NOW);
    assert_eq!(judge(&brought(&key, |_| {})), Ok(()), "the unchanged one is good: the changes make the difference");
    let harmless = brought(&key, |p| {
        p.custom_extensions.push(private());
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
        valid(p, NOW.plus(Duration::from_secs(60)), NOW.plus(LEAST_ROOT_LIFE));
    });
    assert_eq!(judge(&harmless), Ok(()), "at each limit");
    for (what, change, expected, todo) in rows() {
        refused(what, judge(&brought(&key, change)), &expected, todo);
    }
}

#[test]
fn a_root_with_a_key_of_another_kind_or_of_somebody_else_is_refused() {
    let judge = |der: &[u8]| check_root(der, &CLUSTER, NOW);
    for (what, kind) in [("P-384", &PKCS_ECDSA_P384_SHA384), ("RSA 2048", &PKCS_RSA_SHA256), ("Ed25519", &PKCS_ED25519)]
    {
        let der = brought(&KeyPair::generate_for(kind).unwrap(), |_| {});
        refused(what, judge(&der), &GivenError::Key, "make a key of that kind");
    }
    // Of the right name, and signed by another root of that name.
    let root = new_ca_root(NOW, ROOT_LIFE);
    let signed_by_another = forge(&root, &Key::new(), |p| {
        p.distinguished_name = name_of(&root.der);
        p.subject_alt_names.clear();
        p.extended_key_usages.clear();
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        valid(p, NOW.minus(DAY), NOW.plus(ROOT_LIFE));
    });
    refused("signed by another", judge(&signed_by_another), &GivenError::NotSelfSigned, "sign it with its own key");
}

/// An issuer's key, and the request that was shown.
fn asked() -> (Key, Vec<u8>) {
    let key = Key::new();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    (key, csr)
}

fn signed(root: &Ca, key: &Key) -> Vec<u8> {
    RootCa::open(&root.der, &root.key).unwrap().issuer(&key.subject(), serial(2), NOW, ISSUER_LIFE).unwrap().der
}

/// A certificate, the request it is for, when it is shown, why it is refused, and in which words.
type IssuerRow<'a> = (&'a str, &'a [u8], &'a [u8], Millis, GivenError, &'a str);

#[test]
fn an_issuer_that_would_not_work_is_refused_for_its_own_reason_in_words_that_say_what_to_do() {
    let (root, other) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let (key, csr) = asked();
    let good = signed(&root, &key);
    let end = NOW.plus(ISSUER_LIFE);
    assert_eq!(check_issuer(&good, &root.der, &csr, NOW), Ok(end));
    let last = Millis(end.0 - 1000);
    assert_eq!(check_issuer(&good, &root.der, &csr, last), Ok(end));
    let begin = NOW.minus(BACKDATE);
    let (for_another, by_another, outlives) = (asked().1, signed(&other, &key), outliving(&root, &key));
    let table: [IssuerRow<'_>; 5] = [
        ("for another key", &good, &for_another, NOW, GivenError::OtherKey, "sign that request"),
        ("by another root", &by_another, &csr, NOW, GivenError::OtherRoot, "with that root's key"),
        ("over", &good, &csr, end, GivenError::Over(end), "sign the request anew"),
        ("not begun", &good, &csr, begin.minus(DAY), GivenError::NotYetValid(begin), "wait for it"),
        ("outlives its root", &outlives, &csr, NOW, GivenError::Outlives, "for a shorter time"),
    ];
    for (what, issuer, csr, now, expected, todo) in table {
        refused(what, check_issuer(issuer, &root.der, csr, now).map(drop), &expected, todo);
    }
    // Of the right key and root, but a leaf.
    let leaf = forge(&root, &key, |p| under(p, &root));
    let no = check_issuer(&leaf, &root.der, &csr, NOW).unwrap_err();
    assert!(matches!(no, GivenError::Issuer(_)) && no.to_string().contains("holdfast root sign"), "{no}");
}

/// As `root sign` makes it, but for a day longer than the root lives: our own code makes none, so it is forged.
fn outliving(root: &Ca, key: &Key) -> Vec<u8> {
    let name = name_of(&signed(root, key));
    forge(root, key, |p| {
        under(p, root);
        p.distinguished_name = name;
        p.subject_alt_names.clear();
        p.extended_key_usages.clear();
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        valid(p, NOW.minus(DAY), NOW.plus(ROOT_LIFE).plus(DAY));
    })
}

/// Names the root's key as the root itself does.
fn under(p: &mut CertificateParams, root: &Ca) {
    let id = holdfast_pki::given::key_id(&root.der).unwrap();
    p.use_authority_key_identifier_extension = false;
    let content = [[0x30, 22, 0x80, 20].as_slice(), id.as_slice()].concat();
    p.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 35], content));
}
