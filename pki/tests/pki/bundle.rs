//! Bundles: trust moves only from root to root, and only forwards.

use crate::admins::charters;
use crate::world::{CLUSTER, Ca, DAY, NOW, World, id, new_ca_root};
use holdfast_pki::bundle::{Admins, BundleError, follow, sec1_of_cert, stk_keys, verify_bundle, verify_bundle_chain};
use holdfast_pki::issue::ROOT_LIFE;
use holdfast_pki::keys::{CertSigner, RootStatementSigner};
use holdfast_types::{ClusterId, Millis, sha256};
use holdfast_wire::keys::{ALG_ED25519, ALG_P256};
use holdfast_wire::statement::{StatementError, sign};
use holdfast_wire::v1;

pub fn bundle(epoch: u64, roots: &[&Ca], prev: Option<&v1::Statement>) -> v1::Bundle {
    v1::Bundle {
        cluster_id: CLUSTER.0.to_vec(),
        era: 1,
        epoch,
        roots: roots.iter().map(|r| r.der.clone()).collect(),
        cross: Vec::new(),
        stks: vec![stk(1, NOW, NOW.plus(DAY)), stk(2, NOW.plus(DAY), NOW.plus(2 * DAY))],
        intake_pk: vec![3; 32],
        prev_sha256: prev.map(|p| sha256(&[&p.payload]).to_vec()).unwrap_or_default(),
        charter_version: 0,
    }
}

fn stk(n: u8, from: Millis, until: Millis) -> v1::Stk {
    v1::Stk { key: Some(v1::PublicKey { alg: ALG_ED25519, key: vec![n; 32] }), from_ms: from.0, until_ms: until.0 }
}

fn signed(bundle: &v1::Bundle, by: &[&Ca]) -> v1::Statement {
    let signers: Vec<_> = by.iter().map(|ca| RootStatementSigner(&ca.key)).collect();
    let signers: Vec<&dyn holdfast_wire::keys::StatementSigner> = signers.iter().map(|s| s as _).collect();
    sign(bundle, &signers).unwrap()
}

#[test]
fn a_bundle_is_believed_under_a_trusted_root() {
    let a = new_ca_root(NOW, ROOT_LIFE);
    assert_eq!(sec1_of_cert(&a.der), Some(a.key.sec1()));
    let st = signed(&bundle(1, &[&a], None), &[&a]);
    assert_eq!(verify_bundle(&st, &[&a.der], &CLUSTER).unwrap().doc.epoch, 1);
}

#[test]
fn a_bundle_signed_only_by_the_root_it_adds_is_refused() {
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let st = signed(&bundle(2, &[&a, &b], None), &[&b]);
    let refused = verify_bundle(&st, &[&a.der], &CLUSTER).unwrap_err();
    assert_eq!(refused, BundleError::Statement(StatementError::Threshold { good: 0, needed: 1 }));
    let nobody: &[Vec<u8>] = &[];
    assert!(verify_bundle(&st, nobody, &CLUSTER).is_err(), "an empty set of roots trusts nothing");
}

#[test]
fn a_chain_of_bundles_leads_over_rotations_that_were_slept_through() {
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let first = signed(&bundle(1, &[&a], None), &[&a]);
    let add = signed(&bundle(4, &[&a, &b], Some(&first)), &[&a, &b]);
    let drop = signed(&bundle(5, &[&b], Some(&add)), &[&a, &b]);
    let later = signed(&bundle(9, &[&b], Some(&drop)), &[&b]);
    let chain = [first, add, drop, later];
    let charters = charters(&[&[1]]);
    let admins = Admins::in_force(&charters);
    let last = verify_bundle_chain(&chain, &[&a.der], admins, &CLUSTER).unwrap();
    assert_eq!((last.doc.epoch, &last.doc.roots), (9, &vec![b.der.clone()]));
    assert_eq!(verify_bundle_chain(&[], &[&a.der], admins, &CLUSTER).unwrap_err(), BundleError::Empty);
    let gap = [chain[0].clone(), chain[2].clone()];
    assert_eq!(verify_bundle_chain(&gap, &[&a.der], admins, &CLUSTER).unwrap_err(), BundleError::Previous);
}

#[test]
fn a_bundle_goes_forwards_within_its_era_only() {
    let a = new_ca_root(NOW, ROOT_LIFE);
    let now = signed(&bundle(5, &[&a], None), &[&a]);
    let current = verify_bundle(&now, &[&a.der], &CLUSTER).unwrap();
    let charters = charters(&[&[1]]);
    let admins = Admins::in_force(&charters);
    for epoch in [4, 5] {
        let old = signed(&bundle(epoch, &[&a], Some(&now)), &[&a]);
        assert_eq!(follow(&current, &old, admins, &CLUSTER).unwrap_err(), BundleError::Epoch { ours: 5, got: epoch });
    }
    let next_era = signed(&v1::Bundle { era: 2, ..bundle(6, &[&a], Some(&now)) }, &[&a]);
    assert_eq!(follow(&current, &next_era, admins, &CLUSTER).unwrap_err(), BundleError::Era { ours: 1, got: 2 });
    let good = signed(&bundle(6, &[&a], Some(&now)), &[&a]);
    assert_eq!(follow(&current, &good, admins, &CLUSTER).unwrap().doc.epoch, 6);
}

#[test]
fn a_bundle_with_unusable_content_is_refused_even_if_a_root_signed_it() {
    let world = World::new();
    let a = &world.root;
    let good = bundle(1, &[a], None);
    let leaf = world.leaf(&id("node/n1")).der;
    let p256 = v1::PublicKey { alg: ALG_P256, key: a.key.sec1() };
    let table = [
        (v1::Bundle { roots: vec![], ..good.clone() }, BundleError::RootCount),
        (v1::Bundle { roots: vec![a.der.clone(); 2], ..good.clone() }, BundleError::RootCount),
        (v1::Bundle { roots: vec![world.issuer.der.clone()], ..good.clone() }, BundleError::Root),
        (v1::Bundle { cross: vec![leaf], ..good.clone() }, BundleError::Cross),
        (v1::Bundle { cross: vec![b"junk".to_vec()], ..good.clone() }, BundleError::Cross),
        (v1::Bundle { stks: vec![stk(1, NOW, NOW)], ..good.clone() }, BundleError::StatementKey),
        (
            v1::Bundle { stks: vec![v1::Stk { key: Some(p256), ..stk(1, NOW, NOW.plus(DAY)) }], ..good.clone() },
            BundleError::StatementKey,
        ),
        (
            v1::Bundle { stks: vec![v1::Stk { key: None, ..stk(1, NOW, NOW.plus(DAY)) }], ..good.clone() },
            BundleError::StatementKey,
        ),
        (v1::Bundle { intake_pk: vec![], ..good.clone() }, BundleError::IntakeKey),
    ];
    for (bad, expected) in table {
        assert_eq!(verify_bundle(&signed(&bad, &[a]), &[&a.der], &CLUSTER).unwrap_err(), expected);
    }
    let other = ClusterId([8; 32]);
    assert_eq!(verify_bundle(&signed(&good, &[a]), &[&a.der], &other).unwrap_err(), BundleError::Cluster);
    assert_eq!(verify_bundle(&signed(&good, &[a]), &[b"junk"], &CLUSTER).unwrap_err(), BundleError::TrustedRoot);
}

#[test]
fn statement_keys_count_only_within_their_window() {
    let a = new_ca_root(NOW, ROOT_LIFE);
    let b = bundle(1, &[&a], None);
    let keys = |t: Millis| stk_keys(&b, t).iter().map(|k| k.key[0]).collect::<Vec<_>>();
    assert_eq!(keys(Millis(NOW.0 - 1)), Vec::<u8>::new());
    assert_eq!(keys(NOW), [1]);
    assert_eq!(keys(NOW.plus(DAY)), [2]);
    assert_eq!(keys(NOW.plus(2 * DAY)), Vec::<u8>::new());
}
