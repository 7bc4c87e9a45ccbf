//! Chains: each way of being wrong is refused, and for that reason.

use crate::world::{
    CLUSTER, Ca, Change, DAY, Key, NOW, OUT_OF_TIME, World, chain, critical, forge, id, new_ca_issuer, new_ca_root,
    parse, private, serial, trust_domain, uri,
};
use holdfast_pki::CertError;
use holdfast_pki::chain::{Anchors, ChainError, MAX_CHAIN, Usage, verify_by_anchor, verify_peer};
use holdfast_pki::issue::{ROOT_LIFE, RootCa};
use holdfast_pki::names::NameError;
use holdfast_types::{ClusterId, Millis, Role, SpiffeError, TrustDomain, sha256};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;

fn anchors(roots: &[&Ca]) -> Anchors {
    let ders: Vec<_> = roots.iter().map(|r| &r.der).collect();
    Anchors::new(&ders, trust_domain()).unwrap()
}

#[test]
fn a_good_chain_gives_the_peer_and_its_pins() {
    let world = World::new();
    let leaf = world.leaf(&id("vault/1"));
    let chain = chain(&[&leaf.der, &world.issuer.der]);
    for usage in [Usage::Client, Usage::Server] {
        let peer = verify_peer(&chain, &anchors(&[&world.root]), NOW, usage).unwrap();
        assert_eq!(peer.id, id("vault/1"));
        assert_eq!((peer.serial_hex, peer.spki_sha256), (leaf.serial_hex.clone(), leaf.spki_sha256));
        assert_eq!((peer.not_after, peer.leaf_der), (leaf.not_after, leaf.der.clone()));
        assert_eq!(peer.root_sha256, sha256(&[&world.root.der]));
    }
}

/// Beside [`OUT_OF_TIME`]: what a holder of the issuer's key could make of a leaf, and why it is refused.
const FORGED_LEAVES: &[Change] = &[
    ("wrong EKU", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], ChainError::Usage("client")),
    ("any EKU", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any], ChainError::Usage("client")),
    ("no EKU", |p| p.extended_key_usages.clear(), ChainError::Usage("client")),
    ("no name", |p| p.subject_alt_names.clear(), ChainError::Name(NameError::Uris(0))),
    (
        "two URIs",
        |p| p.subject_alt_names.push(uri("spiffe://prod.example.org/node/n2")),
        ChainError::Name(NameError::Uris(2)),
    ),
    (
        "the same URI twice",
        |p| p.subject_alt_names.push(uri("spiffe://prod.example.org/node/n1")),
        ChainError::Name(NameError::Uris(2)),
    ),
    (
        "a DNS name",
        |p| p.subject_alt_names.push(SanType::DnsName("n1.example".try_into().unwrap())),
        ChainError::Name(NameError::OtherName),
    ),
    (
        "an address",
        |p| p.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into())),
        ChainError::Name(NameError::OtherName),
    ),
    (
        "an unknown role",
        |p| p.subject_alt_names = vec![uri("spiffe://prod.example.org/root/n1")],
        ChainError::Name(NameError::Spiffe(SpiffeError::Role)),
    ),
    (
        "a web address",
        |p| p.subject_alt_names = vec![uri("https://prod.example.org/node/n1")],
        ChainError::Name(NameError::Spiffe(SpiffeError::Shape)),
    ),
    ("keyCertSign", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), ChainError::LeafIsCa),
    ("no key usage", |p| p.key_usages.clear(), ChainError::LeafKeyUsage),
    ("a CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), ChainError::LeafIsCa),
    ("serial 0", |p| p.serial_number = Some(vec![0].into()), ChainError::ZeroSerial),
    ("a private critical extension", |p| p.custom_extensions.push(critical()), ChainError::CriticalExtension),
    (
        "an extension twice",
        |p| p.custom_extensions = vec![private(), private()],
        ChainError::Cert { index: 0, error: CertError::DuplicateExtension },
    ),
];

#[test]
fn a_forged_leaf_is_refused_for_what_is_wrong_with_it() {
    let World { root, issuer, .. } = World::new();
    let judge = |leaf: &Vec<u8>| verify_peer(&chain(&[leaf, &issuer.der]), &anchors(&[&root]), NOW, Usage::Client);
    let plain = forge(&issuer, &Key::new(), |_| {});
    assert_eq!(
        judge(&plain).unwrap().id,
        id("node/n1"),
        "the unchanged forgery is good: the changes make the difference"
    );
    for (what, change, expected) in OUT_OF_TIME.iter().chain(FORGED_LEAVES) {
        assert_eq!(judge(&forge(&issuer, &Key::new(), change)).as_ref(), Err(expected), "{what}");
    }
}

#[test]
fn a_leaf_of_another_trust_domain_is_refused() {
    let world = World::new();
    let anchors = Anchors::new(&[&world.root.der], TrustDomain::parse("other.example").unwrap()).unwrap();
    let refused = verify_peer(&world.chain(&id("node/n1")), &anchors, NOW, Usage::Client);
    assert_eq!(refused, Err(ChainError::TrustDomain(trust_domain())));
}

#[test]
fn a_node_certificate_cannot_serve() {
    let world = World::new();
    let refused = verify_peer(&world.chain(&id("node/n1")), &anchors(&[&world.root]), NOW, Usage::Server);
    assert_eq!(refused, Err(ChainError::Usage("server")));
}

#[test]
fn an_expired_root_anchors_nothing() {
    // The forger's issuer and leaf are valid; only the root is over. webpki alone accepts this chain.
    let root = new_ca_root(NOW.minus(10 * DAY), 5 * DAY);
    let issuer = forged_ca(&root, |_| {});
    let chain = chain(&[&forge(&issuer, &Key::new(), |_| {}), &issuer.der]);
    let over = verify_peer(&chain, &anchors(&[&root]), NOW, Usage::Client);
    assert_eq!(over, Err(ChainError::NoLiveRoot { off: 5 * DAY }));
    let live = new_ca_root(NOW, ROOT_LIFE);
    assert_eq!(verify_peer(&chain, &anchors(&[&root, &live]), NOW, Usage::Client), Err(ChainError::BadSignature));
    let before = NOW.minus(6 * DAY);
    let early = verify_peer(&chain, &anchors(&[&root]), before, Usage::Client).unwrap_err();
    assert!(matches!(early, ChainError::NotYetValid { .. }), "{early}");
    let future = new_ca_root(NOW.plus(DAY), DAY);
    let early = verify_peer(&chain, &anchors(&[&future]), NOW, Usage::Client).unwrap_err();
    assert!(matches!(early, ChainError::NoLiveRoot { .. }), "{early}");
}

/// An issuer made by the holder of `ca`'s key, changed by `change`.
fn forged_ca(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let key = Key::new();
    let der = forge(ca, &key, |p| {
        p.subject_alt_names.clear();
        p.extended_key_usages.clear();
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        p.distinguished_name.push(rcgen::DnType::CommonName, format!("forged {}", key.subject().spki_sha256()));
        change(p);
    });
    Ca { key, der }
}

#[test]
fn an_issuer_cannot_make_another_issuer() {
    let World { root, issuer, .. } = World::new();
    let below = forged_ca(&issuer, |_| {});
    let chain = chain(&[&forge(&below, &Key::new(), |_| {}), &below.der, &issuer.der]);
    assert_eq!(verify_peer(&chain, &anchors(&[&root]), NOW, Usage::Client), Err(ChainError::PathLength));
}

#[test]
fn a_leaf_cannot_sign_a_leaf() {
    let World { root, issuer, .. } = World::new();
    let middle = forged_ca(&issuer, |p| {
        p.is_ca = IsCa::ExplicitNoCa;
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let chain = chain(&[&forge(&middle, &Key::new(), |_| {}), &middle.der, &issuer.der]);
    assert_eq!(verify_peer(&chain, &anchors(&[&root]), NOW, Usage::Client), Err(ChainError::NotCa));
}

#[test]
fn chains_of_strangers_and_odd_shapes_are_refused() {
    let (world, stranger) = (World::new(), World::new());
    let good = world.chain(&id("node/n1"));
    let judge =
        |chain: &[CertificateDer<'_>]| verify_peer(chain, &anchors(&[&world.root]), NOW, Usage::Client).unwrap_err();
    assert_eq!(judge(&[]), ChainError::Empty);
    assert_eq!(judge(&good[..1]), ChainError::UnknownIssuer, "the issuer is missing");
    assert_eq!(judge(&stranger.chain(&id("node/n1"))), ChainError::BadSignature, "same names, other keys");
    assert_eq!(judge(&vec![good[0].clone(); MAX_CHAIN + 1]), ChainError::TooDeep(MAX_CHAIN + 1));
    assert!(matches!(judge(&[good[1].clone()]), ChainError::LeafIsCa));
    let long = [good[0].to_vec(), vec![0]].concat();
    assert_eq!(judge(&[long.into()]), ChainError::Cert { index: 0, error: CertError::TrailingBytes });
    let huge = CertificateDer::from(vec![0x30; 9000]);
    assert_eq!(judge(&[good[0].clone(), huge]), ChainError::Cert { index: 1, error: CertError::TooLong(9000) });
    let mut flipped = good[0].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(judge(&[flipped.into(), good[1].clone()]), ChainError::BadSignature);
}

#[test]
fn only_ca_certificates_become_anchors_and_an_empty_set_is_an_error() {
    let world = World::new();
    let leaf = world.leaf(&id("node/n1")).der;
    assert_eq!(Anchors::new(&[leaf], trust_domain()).err(), Some(ChainError::BadRoot));
    assert_eq!(Anchors::new(&[b"junk"], trust_domain()).err(), Some(ChainError::BadRoot));
    assert_eq!(Anchors::new::<Vec<u8>>(&[], trust_domain()).err(), Some(ChainError::NoRoot));
}

#[test]
fn one_chain_with_a_cross_certificate_serves_verifiers_of_either_root() {
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let cross = RootCa::open(&a.der, &a.key).unwrap().cross(&b.der, serial(4), NOW).unwrap();
    let issuer = new_ca_issuer(&b, NOW);
    let chain = chain(&[&forge(&issuer, &Key::new(), |_| {}), &issuer.der, &cross.der]);
    for root in [&a, &b] {
        let peer = verify_peer(&chain, &anchors(&[root]), NOW, Usage::Client).unwrap();
        assert_eq!(peer.root_sha256, sha256(&[&root.der]));
    }
}

#[test]
fn a_joining_node_believes_the_vault_by_the_anchor_alone() {
    let world = World::new();
    let anchor = CLUSTER.anchor(&world.root.der);
    let full = chain(&[&world.leaf(&id("vault/1")).der, &world.issuer.der, &world.root.der]);
    let (cluster, peer) = verify_by_anchor(&full, &anchor, NOW).unwrap();
    assert_eq!((cluster, peer.id), (CLUSTER, id("vault/1")));
    assert_eq!(verify_by_anchor(&full[..2], &anchor, NOW), Err(ChainError::Anchor), "without the root");
    let lie = ClusterId([8; 32]).anchor(&world.root.der);
    assert_eq!(verify_by_anchor(&full, &lie, NOW), Err(ChainError::Anchor), "the right root, another cluster");
    let other = CLUSTER.anchor(&World::new().root.der);
    assert_eq!(verify_by_anchor(&full, &other, NOW), Err(ChainError::Anchor), "another root");
    let later = NOW.plus(ROOT_LIFE + DAY);
    let late = verify_by_anchor(&full, &anchor, later).unwrap_err();
    assert!(matches!(late, ChainError::NoLiveRoot { .. }), "{late}");
}

#[test]
fn an_orchestrator_or_a_stranger_beside_the_root_cannot_pass_for_the_vault() {
    let (world, stranger) = (World::new(), World::new());
    let anchor = CLUSTER.anchor(&world.root.der);
    let orch = chain(&[&world.leaf(&id("orch/o1")).der, &world.issuer.der, &world.root.der]);
    assert_eq!(verify_by_anchor(&orch, &anchor, NOW), Err(ChainError::NotVault(Role::Orch)));
    let op = chain(&[&world.leaf(&id("op/ann")).der, &world.issuer.der, &world.root.der]);
    assert_eq!(verify_by_anchor(&op, &anchor, NOW), Err(ChainError::Usage("server")));
    let fake = chain(&[&stranger.leaf(&id("vault/1")).der, &stranger.issuer.der, &world.root.der]);
    assert_eq!(verify_by_anchor(&fake, &anchor, NOW), Err(ChainError::BadSignature), "the root is public");
}

#[test]
fn validity_includes_both_of_its_ends() {
    let world = World::new();
    let chain = world.chain(&id("node/n1"));
    let leaf = parse(&chain[0]).validity().clone();
    let judge = |secs: i64| verify_peer(&chain, &anchors(&[&world.root]), Millis(secs * 1000), Usage::Client);
    assert!(judge(leaf.not_before.timestamp()).is_ok() && judge(leaf.not_after.timestamp()).is_ok());
    let not_after = Millis(leaf.not_after.timestamp() * 1000);
    let late = judge(not_after.secs() + 1).unwrap_err();
    assert_eq!(late, ChainError::Expired { not_after });
    assert_eq!(late.off_by(not_after.plus(DAY)), Some(DAY));
}

proptest! {
    #[test]
    fn random_and_changed_leaves_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..800), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let world = World::new();
        let good = world.chain(&id("node/n1"));
        let mut flipped = good[0].to_vec();
        let at = at.index(flipped.len());
        flipped[at] ^= flip;
        for leaf in [bytes, flipped] {
            let chain = [CertificateDer::from(leaf), good[1].clone()];
            prop_assert!(verify_peer(&chain, &anchors(&[&world.root]), NOW, Usage::Client).is_err());
        }
    }
}
