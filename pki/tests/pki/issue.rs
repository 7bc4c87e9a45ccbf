//! Issuing: certificates say what was intended, no more, and for no longer than their issuer.

use crate::world::{CLUSTER, Ca, DAY, Key, NOW, World, forge, id, name_of, new_ca_root, parse, serial};
use holdfast_pki::issue::{ISSUER_LIFE, IssueError, IssuerCa, ROOT_LIFE, RootCa, cluster_of_root, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_pki::names::identity_of_cert;
use holdfast_types::{ClusterId, Millis};
use holdfast_wire::keys::SignError;
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use std::time::Duration;
use x509_parser::extensions::ParsedExtension;

#[test]
fn a_leaf_may_do_what_its_role_needs_and_nothing_else() {
    let world = World::new();
    for (path, listens) in
        [("node/n1", false), ("op/ann", false), ("vault/1", true), ("orch/o1", true), ("svc/a/b", true)]
    {
        let leaf = world.leaf(&id(path));
        let cert = parse(&leaf.der);
        let eku = cert.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((eku.client_auth, eku.server_auth, eku.any, eku.other.len()), (true, listens, false, 0), "{path}");
        let usage = cert.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.flags == 1, "{path}");
        assert!(!cert.is_ca());
        assert_eq!(identity_of_cert(&leaf.der).unwrap(), id(path));
        assert!(cert.subject_alternative_name().unwrap().unwrap().critical, "the subject is empty");
        assert_eq!(cert.subject().iter().count(), 0);
        assert_eq!(cert.extensions().len(), 6);
    }
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let world = World::starting(NOW, 2 * DAY);
    let root = parse(&world.root.der).validity().not_after;
    let issuer = parse(&world.issuer.der).validity().not_after;
    let leaf = world.leaf_for(&Key::new().subject(), &id("node/n1"), 300 * DAY);
    assert_eq!((issuer, parse(&leaf.der).validity().not_after), (root, root));
    assert_eq!(leaf.not_after.secs(), root.timestamp());
    let short = world.leaf_for(&Key::new().subject(), &id("node/n1"), DAY);
    assert_eq!(short.not_after, NOW.plus(DAY));
    assert_eq!(parse(&short.der).validity().not_before.timestamp(), NOW.secs() - 300);
}

#[test]
fn every_authority_key_identifier_is_the_issuers_subject_key_identifier() {
    let world = World::new();
    let leaf = world.leaf(&id("vault/1")).der;
    assert_eq!(key_ids(&world.root.der).1, None);
    assert_eq!(key_ids(&world.issuer.der).1, key_ids(&world.root.der).0);
    assert_eq!(key_ids(&leaf).1, key_ids(&world.issuer.der).0);
}

/// Subject and authority key identifier.
fn key_ids(der: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut ski, mut aki) = (None, None);
    for e in parse(der).extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(k) = e.parsed_extension() {
            ski = Some(k.0.to_vec());
        }
        if let ParsedExtension::AuthorityKeyIdentifier(a) = e.parsed_extension() {
            aki = a.key_identifier.as_ref().map(|k| k.0.to_vec());
        }
    }
    (ski, aki)
}

#[test]
fn serial_numbers_are_positive_and_kept_whole() {
    let world = World::new();
    let ca = IssuerCa::open(&world.issuer.der, &world.issuer.key).unwrap();
    let leaf = |s| ca.leaf(&Key::new().subject(), &id("node/n1"), s, NOW, DAY);
    let high = leaf([0xff; 16]).unwrap();
    assert_eq!(high.serial_hex, "ff".repeat(16));
    assert_eq!(parse(&high.der).raw_serial().first(), Some(&0), "a leading zero keeps the number positive");
    let mut low = [0; 16];
    low[15] = 3;
    assert_eq!(leaf(low).unwrap().serial_hex, "03");
    assert_eq!(leaf([0; 16]).unwrap_err(), IssueError::ZeroSerial);
}

#[test]
fn the_root_names_its_cluster_and_nothing_else_does() {
    let world = World::new();
    assert_eq!(cluster_of_root(&world.root.der), Some(CLUSTER));
    assert_eq!(cluster_of_root(&world.issuer.der), None);
    assert_eq!(cluster_of_root(&world.leaf(&id("node/n1")).der), None);
    assert_eq!(cluster_of_root(b"no certificate"), None);
}

#[test]
fn a_ca_is_opened_only_with_its_own_key_and_for_its_own_tier() {
    let World { root, issuer, .. } = World::new();
    let stranger = Key::new();
    assert_eq!(RootCa::open(&root.der, &stranger).err(), Some(IssueError::KeyMismatch));
    assert_eq!(IssuerCa::open(&issuer.der, &stranger).err(), Some(IssueError::KeyMismatch));
    assert_eq!(RootCa::open(&issuer.der, &issuer.key).err(), Some(IssueError::NotA("one of our roots")));
    assert_eq!(IssuerCa::open(&root.der, &root.key).err(), Some(IssueError::NotA("one of our issuers")));
    let mut broken = root.der.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(RootCa::open(&broken, &root.key).err(), Some(IssueError::NotA("one of our roots")));
}

#[test]
fn a_ca_signs_only_while_it_is_valid() {
    let World { issuer, .. } = World::starting(NOW, ROOT_LIFE);
    let ca = IssuerCa::open(&issuer.der, &issuer.key).unwrap();
    let leaf = |now: Millis| ca.leaf(&Key::new().subject(), &id("node/n1"), serial(3), now, DAY);
    assert!(leaf(NOW.plus(ISSUER_LIFE).minus(DAY)).is_ok());
    for now in [NOW.plus(ISSUER_LIFE), NOW.plus(ISSUER_LIFE + DAY), NOW.minus(DAY)] {
        assert!(matches!(leaf(now), Err(IssueError::CaNotValid { .. })), "{now}");
    }
}

#[test]
fn lives_that_cannot_be_written_are_refused() {
    let World { issuer, .. } = World::new();
    let ca = IssuerCa::open(&issuer.der, &issuer.key).unwrap();
    for life in [Duration::ZERO, Duration::from_millis(999), 9_000 * 365 * DAY, Duration::MAX] {
        let refused = ca.leaf(&Key::new().subject(), &id("node/n1"), serial(3), NOW, life);
        assert_eq!(refused.unwrap_err(), IssueError::Life, "{life:?}");
    }
}

#[test]
fn a_cross_certificate_joins_two_roots_of_one_cluster_only() {
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, 3 * DAY));
    let ca = RootCa::open(&a.der, &a.key).unwrap();
    let cross = ca.cross(&b.der, serial(4), NOW).unwrap();
    assert_eq!(parse(&cross.der).public_key().raw, parse(&b.der).public_key().raw);
    assert_eq!(cross.not_after, NOW.plus(3 * DAY), "no longer than either root");
    assert_eq!(ca.cross(&a.der, serial(4), NOW).unwrap_err(), IssueError::Cross);
    let stranger = Key::new();
    let foreign = new_root(&stranger, &ClusterId([8; 32]), serial(1), NOW, ROOT_LIFE).unwrap();
    assert_eq!(ca.cross(&foreign.der, serial(4), NOW).unwrap_err(), IssueError::Cross);
    assert!(matches!(ca.cross(&b.der, serial(4), NOW.plus(4 * DAY)), Err(IssueError::CaNotValid { .. })));
}

#[test]
fn a_root_leaves_room_for_an_issuer_and_one_cross_certificate_and_others_for_an_issuer_at_least() {
    let World { root, issuer, .. } = World::new();
    let room = |der: &[u8]| parse(der).basic_constraints().unwrap().unwrap().value.path_len_constraint;
    let cross = RootCa::open(&root.der, &root.key).unwrap();
    let cross = cross.cross(&new_ca_root(NOW, ROOT_LIFE).der, serial(4), NOW).unwrap().der;
    assert_eq!([&root.der, &cross, &issuer.der].map(|der| room(der)), [Some(2), Some(1), Some(0)]);
    let with = |room: BasicConstraints| {
        let der = forge(&root, &root.key, |p| {
            p.distinguished_name = name_of(&root.der);
            p.subject_alt_names.clear();
            p.extended_key_usages.clear();
            p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            p.is_ca = IsCa::Ca(room);
        });
        RootCa::open(&der, &root.key).is_ok()
    };
    // Those of before, and those that operators bring.
    for room in [BasicConstraints::Constrained(1), BasicConstraints::Constrained(3), BasicConstraints::Unconstrained] {
        assert!(with(room), "{room:?}");
    }
    assert!(!with(BasicConstraints::Constrained(0)), "no issuer fits below it");
}

/// A token whose session is lost, or that signs with another key than it shows.
struct Faulty<'a> {
    shown: &'a Key,
    used: Option<&'a Key>,
}
impl CertSigner for Faulty<'_> {
    fn sec1(&self) -> Vec<u8> {
        self.shown.sec1()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.used.map_or_else(|| Err(SignError("the session is lost".to_owned())), |k| CertSigner::sign(k, msg))
    }
}

#[test]
fn a_failing_or_lying_signer_yields_no_certificate() {
    let World { issuer: Ca { key, der }, .. } = World::new();
    let leaf = |signer: &Faulty<'_>| {
        IssuerCa::open(&der, signer).unwrap().leaf(&Key::new().subject(), &id("node/n1"), serial(3), NOW, DAY)
    };
    let lost = leaf(&Faulty { shown: &key, used: None }).unwrap_err();
    assert_eq!(lost, IssueError::Sign(SignError("the session is lost".to_owned())));
    let other = Key::new();
    assert_eq!(leaf(&Faulty { shown: &key, used: Some(&other) }).unwrap_err(), IssueError::Differs("its signature"));
}

#[test]
fn an_issuer_key_must_be_p256() {
    let World { root, .. } = World::new();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = SubjectKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&ed25519)).unwrap();
    let ca = RootCa::open(&root.der, &root.key).unwrap();
    assert!(matches!(ca.issuer(&key, serial(3), NOW, ISSUER_LIFE), Err(IssueError::Key(_))));
    assert!(SubjectKey::from_sec1(&[4; 65]).is_err(), "not a point of the curve");
}
